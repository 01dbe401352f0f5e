"""One style for all figures: sizes, colours and how points are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["AFTER", "BEFORE", "COLOURS", "MARKERS", "dots", "new_figure", "tidy_legend", "verbatim"]

# Okabe and Ito (2008), colour-blind safe; further classes repeat with other markers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "^", "s", "D")
BEFORE, AFTER = "#999999", "#0072B2"


def new_figure(
    width: float, height: float, title: str = "", rows: int = 1, columns: int = 1, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of some inches, titled, and its axes, row by row, without the two spines that say nothing."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def dots(ax: Axes, xy: np.ndarray, **style: Any) -> None:
    """Scatter of points (N, 2)."""
    ax.scatter(xy[:, 0], xy[:, 1], **style)


def verbatim(names: Sequence[str]) -> list[str]:
    r"""Names from outside as matplotlib shows them unchanged: a dollar sign begins no formula.

    Example:
        >>> print(*verbatim(["$a^$", "b"]))
        \$a^\$ b
    """
    return [name.replace("$", r"\$") for name in names]


def tidy_legend(ax: Axes, **options: Any) -> None:
    """Legend whose markers are opaque and large enough to tell apart."""
    legend = ax.legend(**{"fontsize": 8, "framealpha": 0.9, "markerscale": 2.5, **options})
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)
