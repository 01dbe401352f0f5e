"""Draw docs/long-tails.md's picture from the rows of longtail.py: balance of every method against reference size.

python benchmarks/longtail_figure.py
"""

from __future__ import annotations

from pathlib import Path

from longtail_tables import DATA, METHODS, SIZES, Rows, mean, picked, read
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from latentebm.plots.style import COLOURS, new_figure

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "long-tails.png"
STYLES = {  # of each method: colour, marker, line
    "both, then the tilt": (COLOURS[0], "o", "-"),
    "frozen, then the tilt": (COLOURS[4], "D", "-"),
    "fine-tuned": (COLOURS[2], "s", "-"),
    "reference only": (COLOURS[3], "^", "-"),
    "oversampled": (COLOURS[1], "v", "-"),
    "importance-weighted": (COLOURS[5], "P", "-"),
    "likelihood-free weights": ("#767676", "X", "-"),
    "untilted": ("#000000", ".", "--"),
    "conditional (oracle)": ("#000000", "*", ":"),
}
TICKS = (0.03, 0.05, 0.1, 0.2, 0.5)


def main() -> None:
    """Draw it."""
    rows = read(HERE / "longtail.jsonl")
    figure, axes = new_figure(10, 5, columns=len(DATA), sharey=True)
    for ax, data in zip(axes, DATA, strict=True):
        _panel(ax, data, rows)
    axes[0].set_ylabel("total variation from equal shares (log scale)")
    axes[1].set_xlabel("reference images per class; mean and range of five seeds")
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(FIGURE)


def _panel(ax: Axes, data: str, rows: Rows) -> None:
    for place, (method, (colour, marker, line)) in enumerate(STYLES.items()):
        groups = [picked(rows, data, size, method) for size in SIZES]
        x = [size * 1.03 ** (place - (len(STYLES) - 1) / 2) for size in SIZES]  # beside one another
        y = [mean(group, "tv") for group in groups]
        below = [m - min(row["tv"] for row in group) for m, group in zip(y, groups, strict=True)]
        above = [max(row["tv"] for row in group) - m for m, group in zip(y, groups, strict=True)]
        look = {"color": colour, "marker": marker, "linestyle": line, "lw": 1 if place else 2.4, "ms": 5}
        ax.errorbar(x, y, yerr=[below, above], label=METHODS[method].strip("*"), elinewidth=1, **look)
    ax.set(xscale="log", yscale="log", title=DATA[data], ylim=(0.02, 0.7))
    ax.set_xticks(SIZES, [str(size) for size in SIZES])
    ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#eeeeee", lw=0.6)


if __name__ == "__main__":
    main()
