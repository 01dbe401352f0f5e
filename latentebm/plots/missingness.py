"""Figures of a table with gaps: where cells are missing, and what was put there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas.api.types import is_numeric_dtype

from latentebm.checks import fail
from latentebm.plots.lettering import fonts, name_ticks, verbatim
from latentebm.plots.style import Place, many, new_figure

__all__ = ["mean_shifts", "plot_imputed", "plot_missingness"]

OBSERVED, IMPUTED = "#0072B2", "#D55E00"  # blue and vermilion, told apart by every common colour vision
PRESENT = "#E8EEF2"
LEVELS = 8


@fonts()
def plot_missingness(mask: pd.DataFrame, title: str = "", *, rows: int = 500, ax: Place = None) -> Figure:
    """Map of observed (True) and missing cells, at most `rows` rows, evenly spaced and kept in order.

    Example:
        >>> plot_missingness(pd.DataFrame({"a": [True, False]})).axes[0].get_title()
        '50.0 % of the cells are missing (orange)'
    """
    if mask.empty:
        raise fail("mask", "at least one cell", mask.shape, "pass the mask of a table")
    keep = np.unique(np.linspace(0, len(mask) - 1, min(rows, len(mask))).astype(int))
    said = title or f"{100 * (1 - mask.to_numpy().mean()):.1f} % of the cells are missing (orange)"
    figure, (panel,) = new_figure(min(6.4, 3 + 0.3 * mask.shape[1]), 4.4, said, ax=ax)
    image = np.where(mask.to_numpy()[keep][..., None], to_rgb(PRESENT), to_rgb(IMPUTED))
    panel.imshow(image, aspect="auto", interpolation="nearest", extent=(-0.5, mask.shape[1] - 0.5, len(mask), 0))
    lost = 1 - mask.mean()
    name_ticks(panel, [f"{100 * share:.0f} %: {column}" for column, share in zip(mask, lost, strict=True)])
    panel.set_ylabel("row")
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@fonts()
def plot_imputed(
    table: pd.DataFrame, mask: pd.DataFrame, title: str = "", *, most: int = 12, ax: Place = None
) -> Figure:
    """Observed against imputed values of the `most` columns that lost most, each as a share of its own cells.

    Arguments:
        table: completed (N, D).
        mask: True = observed (N, D).
        title: by default, where means differ most.
        most: columns shown.
        ax: axes to draw in.

    Raises:
        ValueError: no cell was missing.

    Example:
        >>> table, mask = pd.DataFrame({"a": [1.0, 3.0, 4.0]}), pd.DataFrame({"a": [True, True, False]})
        >>> plot_imputed(table, mask).axes[0].get_title()
        'a: 1 imputed'
    """
    lost = (~mask).sum().sort_values(ascending=False, kind="stable")
    names = list(lost[lost > 0].index[:most])
    if not names:
        raise fail("mask", "a missing cell", "none", "leave the figure out")
    rows, columns = many(len(names))
    said = title or _finding(table, mask, names)
    figure, axes = new_figure(0.4 + 1.95 * columns, 0.5 + 1.9 * rows, said, rows, columns, ax=ax)
    for unused in axes[len(names) :]:
        unused.set_axis_off()
    for panel, name, short in zip(axes, names, verbatim(names), strict=False):
        _marginal(panel, table[name], mask[name])
        panel.set_title(f"{short}: {int((~mask[name]).sum()):,} imputed", fontsize=9)
    for first in axes[::columns]:
        first.set_ylabel("share of cells", fontsize=9)
    return figure


def mean_shifts(table: pd.DataFrame, mask: pd.DataFrame) -> dict[Any, float]:
    """By how many observed standard deviations imputed means lie from observed ones, for each numeric column with gaps.

    Example:
        >>> table, mask = pd.DataFrame({"a": [1.0, 3.0, 2.0]}), pd.DataFrame({"a": [True, True, False]})
        >>> mean_shifts(table, mask)
        {'a': 0.0}
    """
    found = {}
    for name in table:
        values, seen = table[name], mask[name]
        if is_numeric_dtype(values) and not seen.all() and seen.sum() > 1 and values[seen].std() > 0:
            found[name] = float((values[~seen].mean() - values[seen].mean()) / values[seen].std())
    return found


def _finding(table: pd.DataFrame, mask: pd.DataFrame, names: list[Any]) -> str:
    shifts = mean_shifts(table[names], mask[names])
    title = "Observed (blue) and imputed (orange) values"
    if not shifts:
        return title
    name = max(shifts, key=lambda n: abs(shifts[n]))
    return f"{title}:\nimputed means differ most in {verbatim([name])[0]}, by {shifts[name]:+.1f} sd"


def _marginal(panel: Axes, values: pd.Series, seen: pd.Series) -> None:
    parts = [(values[seen], OBSERVED), (values[~seen], IMPUTED)]
    if is_numeric_dtype(values):
        # Outliers would squeeze everything else into one bar.
        low, high = np.quantile(values.astype(float), [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, 31)
        for part, colour in parts:
            weights = np.full(len(part), 1 / max(1, len(part)))
            panel.hist(np.clip(part, edges[0], edges[-1]), edges.tolist(), weights=weights, color=colour, alpha=0.55)
    else:
        levels = values.value_counts().index[:LEVELS].tolist()
        for shift, (part, colour) in zip((-0.2, 0.2), parts, strict=True):
            share = part.value_counts(normalize=True).reindex(levels).fillna(0)
            panel.bar(np.arange(len(levels)) + shift, share, 0.4, color=colour, alpha=0.8)
        name_ticks(panel, [str(v) for v in levels], size=8)
    panel.tick_params(labelsize=8)
