"""Draw docs/training.md's picture from benchmarks/training.json: how far each method stays below each distribution."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).parent
ROWS = HERE.parent / "benchmarks" / "training.json"
OURS, PEER = "#0072B2", "#D55E00"
DISTRIBUTIONS = ("8 Gaussians", "two moons", "rings", "checkerboard")
BUDGET, LEAST, MOST = 10.0, 0.003, 3.0


def main() -> None:
    """Draw it."""
    rows = json.loads(ROWS.read_text(encoding="utf-8"))["rows"]
    rows = [r for r in rows if r["budget"] == BUDGET and r["dataset"] in DISTRIBUTIONS and r["excess"] is not None]
    excess = {name: _by_method([r for r in rows if r["dataset"] == name]) for name in DISTRIBUTIONS}
    methods = [m for m in dict.fromkeys(r["method"] for r in rows) if all(m in excess[name] for name in DISTRIBUTIONS)]
    methods.sort(key=lambda m: _middle([fmean(excess[name][m]) for name in DISTRIBUTIONS]), reverse=True)
    figure = Figure(figsize=(9.6, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, name in zip(figure.subplots(1, 4, sharey=True), DISTRIBUTIONS, strict=True):
        _panel(ax, name, methods, excess[name])
    below = "nats below the data's own density, held-out points (log scale); mean and range of seeds"
    figure.supxlabel(below, fontsize=10)
    title = "Base draws and multi-scale denoising come close on every distribution; torchebm in orange"
    figure.suptitle(title, fontsize=11)
    figure.savefig(HERE / "figures" / "training-methods.png")


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _by_method(rows: list[dict]) -> dict[str, list[float]]:
    return {m: [r["excess"] for r in rows if r["method"] == m] for m in dict.fromkeys(r["method"] for r in rows)}


def _panel(ax: Axes, name: str, methods: list[str], excess: dict[str, list[float]]) -> None:
    ax.axvspan(LEAST, min(map(fmean, excess.values())) + 0.05, color="#dddddd", lw=0)
    for place, method in enumerate(methods):
        values, colour = excess[method], PEER if method.startswith("torchebm") else OURS
        marker = "o" if fmean(values) <= MOST else ">"
        ax.plot([min(min(values), MOST), min(max(values), MOST)], [place, place], color=colour, lw=2, alpha=0.5)
        ax.plot(min(fmean(values), MOST), place, marker, color=colour, ms=5)
    ax.set(xscale="log", xlim=(LEAST, MOST * 1.15), yticks=range(len(methods)))
    ax.set_yticklabels(methods, fontsize=8)
    ax.set_title(name, fontsize=10)
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
