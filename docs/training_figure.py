"""Draw the picture of docs/training.md from benchmarks/training.json: how far each method stays below each law."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).parent
ROWS = HERE.parent / "benchmarks" / "training.json"
OURS, PEER = "#0072B2", "#D55E00"
LAWS = ("8 Gaussians", "two moons", "rings", "checkerboard")
BUDGET, LEAST, MOST = 10.0, 0.003, 3.0


def main() -> None:
    """Draw it."""
    rows = json.loads(ROWS.read_text(encoding="utf-8"))["rows"]
    rows = [r for r in rows if r["budget"] == BUDGET and r["seed"] == 0 and r["dataset"] in LAWS]
    count = {r["method"]: sum(q["method"] == r["method"] for q in rows) for r in rows}
    methods = [m for m in dict.fromkeys(r["method"] for r in rows) if count[m] == len(LAWS)]

    def middle(method: str) -> float:
        return sorted(r["excess"] for r in rows if r["method"] == method)[len(LAWS) // 2]

    methods.sort(key=middle, reverse=True)
    figure = Figure(figsize=(9.6, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, law in zip(figure.subplots(1, 4, sharey=True), LAWS, strict=True):
        _panel(ax, law, methods, {r["method"]: r["excess"] for r in rows if r["dataset"] == law})
    figure.supxlabel("nats below the data's own law, held-out points (log scale)", fontsize=10)
    figure.suptitle("Base draws and multi-scale denoising come close on every law; torchebm in orange", fontsize=11)
    figure.savefig(HERE / "figures" / "training-methods.png")


def _panel(ax: Axes, law: str, methods: list[str], excess: dict[str, float]) -> None:
    best = min(excess.values())
    ax.axvspan(LEAST, best + 0.05, color="#dddddd", lw=0)
    for place, method in enumerate(methods):
        value, colour = excess[method], PEER if method.startswith("torchebm") else OURS
        marker = "o" if value <= MOST else ">"
        ax.plot([LEAST, min(value, MOST)], [place, place], color=colour, lw=1)
        ax.plot(min(value, MOST), place, marker, color=colour, ms=5)
    ax.set(xscale="log", xlim=(LEAST, MOST * 1.15), yticks=range(len(methods)))
    ax.set_yticklabels(methods, fontsize=8)
    ax.set_title(law, fontsize=10)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
