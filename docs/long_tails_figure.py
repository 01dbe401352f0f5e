"""Draw docs/long-tails.md's picture from benchmarks/longtail.jsonl: balance of every method against reference size."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from latentebm.plots.style import COLOURS, new_figure, root

HERE = Path(__file__).parent
ROWS = HERE.parent / "benchmarks" / "longtail.jsonl"
DATA = {"mnist:50": "MNIST, 50:1", "mnist:100": "MNIST, 100:1", "fashion-mnist:50": "Fashion-MNIST, 50:1"}
SIZES = (10, 25, 100)
STYLES = {  # method: name, colour, marker
    "both, then the tilt": ("VAE of both sets, then the tilt (default)", COLOURS[0], "o"),
    "frozen, then the tilt": ("VAE of the biased set, then the tilt", COLOURS[4], "D"),
    "fine-tuned": ("fine-tuned on the reference", COLOURS[2], "s"),
    "reference only": ("trained on the reference alone", COLOURS[3], "^"),
    "oversampled": ("oversampled union", COLOURS[1], "v"),
    "importance-weighted": ("importance-weighted union", COLOURS[5], "P"),
    "likelihood-free weights": ("likelihood-free weights", "#767676", "X"),
    "untilted": ("untilted", "#000000", "_"),
    "conditional (oracle)": ("conditional VAE with labels (oracle)", "#000000", "*"),
}
TICKS = (0.03, 0.05, 0.1, 0.2, 0.5)


def main() -> None:
    """Draw it."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    figure, axes = new_figure(10, 5, columns=len(DATA), sharey=True)
    for ax, data in zip(axes, DATA, strict=True):
        _panel(ax, data, [row for row in rows if row["data"] == data])
    axes[0].set_ylabel("total variation from equal shares (log scale)")
    axes[1].set_xlabel("reference images per class; mean and range of five seeds")
    handles, names = axes[0].get_legend_handles_labels()
    root(axes[0]).legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(HERE / "figures" / "long-tails.png")


def _panel(ax: Axes, data: str, rows: list[dict]) -> None:
    for place, (method, (name, colour, marker)) in enumerate(STYLES.items()):
        tv = [[row["tv"] for row in rows if (row["method"], row["size"]) == (method, size)] for size in SIZES]
        x = [size * 1.03 ** (place - len(STYLES) / 2) for size in SIZES]  # beside one another
        mean = [sum(seeds) / len(seeds) for seeds in tv]
        spread = [
            [m - min(s) for m, s in zip(mean, tv, strict=True)],
            [max(s) - m for m, s in zip(mean, tv, strict=True)],
        ]
        first = place == 0
        line = {"color": colour, "marker": marker, "ms": 7 if marker == "*" else 5, "lw": 2.4 if first else 1}
        dashes = ":" if method == "conditional (oracle)" else "-"
        ax.errorbar(x, mean, yerr=spread, label=name, linestyle=dashes, elinewidth=1, zorder=3 if first else 2, **line)
    ax.set(xscale="log", yscale="log", title=DATA[data], ylim=(0.02, 0.7))
    ax.set_xticks(SIZES, [str(size) for size in SIZES])
    ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#eeeeee", lw=0.6)


if __name__ == "__main__":
    main()
