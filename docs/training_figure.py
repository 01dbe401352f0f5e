"""Draw the picture of docs/training.md from benchmarks/training.json: how far each method stays below each law."""

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
LAWS = ("8 Gaussians", "two moons", "rings", "checkerboard")
BUDGET, LEAST, MOST = 10.0, 0.003, 3.0


def main() -> None:
    """Draw it."""
    rows = json.loads(ROWS.read_text(encoding="utf-8"))["rows"]
    rows = [r for r in rows if r["budget"] == BUDGET and r["dataset"] in LAWS and r["excess"] is not None]
    laws = {law: _by_method([r for r in rows if r["dataset"] == law]) for law in LAWS}
    methods = [m for m in dict.fromkeys(r["method"] for r in rows) if all(m in laws[law] for law in LAWS)]
    methods.sort(key=lambda m: sorted(fmean(laws[law][m]) for law in LAWS)[len(LAWS) // 2], reverse=True)
    figure = Figure(figsize=(9.6, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, law in zip(figure.subplots(1, 4, sharey=True), LAWS, strict=True):
        _panel(ax, law, methods, laws[law])
    figure.supxlabel("nats below the data's own law, held-out points (log scale); mean and range of seeds", fontsize=10)
    figure.suptitle("Base draws and multi-scale denoising come close on every law; torchebm in orange", fontsize=11)
    figure.savefig(HERE / "figures" / "training-methods.png")


def _by_method(rows: list[dict]) -> dict[str, list[float]]:
    return {m: [r["excess"] for r in rows if r["method"] == m] for m in dict.fromkeys(r["method"] for r in rows)}


def _panel(ax: Axes, law: str, methods: list[str], excess: dict[str, list[float]]) -> None:
    ax.axvspan(LEAST, min(map(fmean, excess.values())) + 0.05, color="#dddddd", lw=0)
    for place, method in enumerate(methods):
        values, colour = excess[method], PEER if method.startswith("torchebm") else OURS
        marker = "o" if fmean(values) <= MOST else ">"
        ax.plot([min(min(values), MOST), min(max(values), MOST)], [place, place], color=colour, lw=2, alpha=0.5)
        ax.plot(min(fmean(values), MOST), place, marker, color=colour, ms=5)
    ax.set(xscale="log", xlim=(LEAST, MOST * 1.15), yticks=range(len(methods)))
    ax.set_yticklabels(methods, fontsize=8)
    ax.set_title(law, fontsize=10)
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", color="#eeeeee", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
