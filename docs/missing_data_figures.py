"""Draw the pictures of docs/missing-data.md: one per mechanism, and digits that lost their bright centre."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from latentebm.data.images import load_images
from latentebm.missing.mechanisms import (
    MAR,
    MCAR,
    ByClass,
    ColumnDriven,
    ImagePixels,
    Mechanism,
    MissingDataWarning,
    Patterns,
    SelfMasking,
    make_missing,
)

HERE = Path(__file__).parent / "figures"
SEEN, GONE = "#0072B2", "#D55E00"


def people(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Age in years and income in thousands, correlated, and a class for every person."""
    rng = np.random.default_rng(0)
    age = np.clip(rng.normal(45, 13, n), 18, 85)
    income = 20 + 0.6 * age + rng.normal(0, 8, n)
    return np.stack([age, income], 1), (rng.random(n) < 0.4).astype(int)


PICTURES: list[tuple[str, str, Mechanism, float | None]] = [
    ("mcar", "MCAR: lost whatever the values", MCAR([1]), 0.35),
    ("mar", "MAR: lost at high age, which is seen", MAR([0], slope=3.0), 0.35),
    ("self-masking-hard", "Hard self-masking: all above a limit", SelfMasking("hard", columns=[1]), 0.35),
    ("self-masking-probit", "Probit self-masking: high ones often", SelfMasking("probit", columns=[1]), 0.35),
    ("self-masking-tails", "Self-masking of both tails", SelfMasking(direction="tails", columns=[1], slope=4.0), 0.35),
    ("column-driven", "Column-driven: age decides and is lost too", ColumnDriven(0, slope=3.0), 0.35),
    ("by-class", "By class: triangles lose four times as often", ByClass({0: 0.15, 1: 0.6}, [1]), None),
    ("patterns", "Patterns: age and income go together", Patterns([[0, 0], [1, 0]], [0.5, 0.5]), 0.35),
]


def scatter(name: str, title: str, mechanism: Mechanism, rate: float | None) -> None:
    """Seen and lost incomes over age, and both histograms of income at the side."""
    X, y = people()
    _, mask = make_missing(X, mechanism, rate, y=y, random_state=1)
    seen = mask[:, 1]
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    points, side = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for label, marker in ((0, "o"), (1, "^")) if isinstance(mechanism, ByClass) else ((None, "o"),):
        here = np.ones(len(X), dtype=bool) if label is None else y == label
        points.scatter(*X[here & seen].T, s=12, c=SEEN, marker=marker, linewidths=0)
        points.scatter(*X[here & ~seen].T, s=12, c=GONE, marker=marker, linewidths=0)
    edges = np.linspace(X[:, 1].min(), X[:, 1].max(), 25)
    side.hist([X[seen, 1], X[~seen, 1]], edges, orientation="horizontal", stacked=True, color=[SEEN, GONE])
    side.axhline(X[:, 1].mean(), color="black", lw=1, ls=":")
    side.axhline(X[seen, 1].mean(), color="black", lw=1.5)
    side.set_xlabel("people")
    side.set_title(f"mean seen (line)\n{X[seen, 1].mean() - X[:, 1].mean():+.1f} off", fontsize=9)
    points.set(xlabel="age, years", ylabel="income, thousands")
    points.set_title(title, fontsize=10)
    points.text(0.02, 0.98, "seen", color=SEEN, transform=points.transAxes, va="top", fontsize=9)
    points.text(0.02, 0.91, "income lost", color=GONE, transform=points.transAxes, va="top", fontsize=9)
    figure.savefig(HERE / f"missing-{name}.png", dpi=120)


def digits() -> None:
    """Digits 3 and 8 without their bright centre, others whole."""
    data = load_images("mnist")
    labels = data.labels.numpy()
    rows = [np.flatnonzero(labels == d)[:3] for d in (3, 8, 1)]
    chosen = np.concatenate(rows)
    images = data.images[chosen].double().numpy()[:, 0] / 255
    holed, _ = make_missing(images, ImagePixels(0.5, "center", digits=[3, 8]), y=labels[chosen])
    figure = Figure(figsize=(6.4, 1.6), layout="constrained")
    for axes, image in zip(figure.subplots(1, 9), holed, strict=True):
        shown = np.repeat(np.nan_to_num(image)[..., None], 3, axis=-1)
        shown[np.isnan(image)] = [int(GONE[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        axes.imshow(shown)
        axes.set_axis_off()
    figure.suptitle("Bright central pixels lost (orange) from digits 3 and 8 only", fontsize=10)
    figure.savefig(HERE / "missing-image-pixels.png", dpi=120)


if __name__ == "__main__":
    # That rows of two columns are emptied is what some of these pictures show.
    warnings.simplefilter("ignore", MissingDataWarning)
    HERE.mkdir(exist_ok=True)
    for picture in PICTURES:
        scatter(*picture)
    digits()
