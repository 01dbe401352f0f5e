"""One style for all figures: sizes, colours, where they are drawn, and how points are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from latentebm.checks import fail
from latentebm.plots.lettering import drawable

__all__ = [
    "AFTER",
    "BEFORE",
    "COLOURS",
    "MARKERS",
    "Place",
    "dots",
    "many",
    "new_figure",
    "root",
    "tidy_legend",
]

# Okabe and Ito (2008), colour-blind safe; further classes repeat with other markers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "^", "s", "D")
BEFORE, AFTER = "#767676", "#0072B2"  # white letters are readable on both
# Where to draw: axes, as many axes as there are panels, or None for a figure of its own.
Place: TypeAlias = Axes | Sequence[Axes] | None


def new_figure(
    width: float, height: float, title: str = "", rows: int = 1, columns: int = 1, *, ax: Place = None, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of some inches, titled, and its axes, row by row, without the two spines that say nothing.

    With `ax` it is drawn there: one panel in these axes, several in their place side by side, or one in each of a
    sequence.

    Example:
        >>> figure, (left, right) = new_figure(4, 2, columns=2)
        >>> inner, axes = new_figure(9, 9, "two in the place of one", columns=2, ax=left)
        >>> inner is figure, len(axes), left.axison
        (True, 2, False)
    """
    axes = _axes(width, height, rows, columns, ax, shared)
    figure = root(axes[0])
    if title:
        if len(axes) == 1:
            axes[0].set_title(drawable(title), fontsize=10)
        elif isinstance(ax, Axes):
            ax.set_title(drawable(title), fontsize=10)
        else:
            figure.suptitle(drawable(title), fontsize=10)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _axes(width: float, height: float, rows: int, columns: int, ax: Place, shared: dict[str, Any]) -> list[Axes]:
    if ax is None:
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        return list(figure.subplots(rows, columns, squeeze=False, **shared).ravel())
    given = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) == rows * columns:
        return given
    place = given[0].get_subplotspec() if len(given) == 1 else None
    if place is None:
        fix = f"pass {rows * columns} axes, or one made by subplots"
        raise fail("ax", f"axes for {rows * columns} panels", len(given), fix)
    given[0].set_axis_off()
    return list(place.subgridspec(rows, columns).subplots(squeeze=False, **shared).ravel())


def many(panels: int, most: int = 3) -> tuple[int, int]:
    """Rows and columns of panels, at most so many side by side, of which none stands alone.

    Example:
        >>> [many(n) for n in (1, 3, 4, 5)]
        [(1, 1), (1, 3), (2, 2), (2, 3)]
    """
    rows = -(-panels // most)
    return rows, -(-panels // rows)


def root(ax: Axes) -> Figure:
    """The whole figure that axes belong to."""
    figure: Any = ax.figure
    while isinstance(figure, SubFigure):
        figure = figure.figure
    return cast("Figure", figure)


def dots(ax: Axes, xy: np.ndarray, **style: Any) -> None:
    """Scatter of points (N, 2)."""
    ax.scatter(xy[:, 0], xy[:, 1], **style)


def tidy_legend(ax: Axes, **options: Any) -> None:
    """Legend whose markers are opaque and large enough to tell apart."""
    legend = ax.legend(**{"fontsize": 8, "framealpha": 0.9, "markerscale": 2.5, **options})
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)
