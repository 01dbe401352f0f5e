"""Figures of missing data: where cells are missing, and what was put there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

__all__ = ["marginals", "missingness_map"]

OBSERVED, IMPUTED = "#0072B2", "#D55E00"  # blue and vermilion, told apart by every common colour vision


def missingness_map(mask: pd.DataFrame, *, rows: int = 500) -> Figure:
    """Map of observed and missing cells, rows thinned to at most `rows` and kept in order.

    Arguments:
        mask: True = observed, (N, D).
        rows: most rows to show.

    Example:
        >>> len(missingness_map(pd.DataFrame({"a": [True, False]})).axes)
        1
    """
    keep = np.unique(np.linspace(0, len(mask) - 1, min(rows, len(mask))).astype(int))
    share = 1 - mask.mean()
    figure = Figure(figsize=(min(14.0, 3 + 0.3 * mask.shape[1]), 4.8), layout="constrained")
    axes = figure.add_subplot()
    image = np.where(mask.to_numpy()[keep][..., None], _rgb("#E8EEF2"), _rgb(IMPUTED))
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=(-0.5, mask.shape[1] - 0.5, len(mask), 0))
    ticks = np.arange(mask.shape[1])[:: max(1, mask.shape[1] // 40)]
    axes.set_xticks(ticks, [f"{mask.columns[j]} ({share.iloc[j]:.0%})" for j in ticks], rotation=90, fontsize=9)
    axes.set(ylabel="row", title=f"{1 - mask.to_numpy().mean():.1%} of the cells are missing (orange)")
    return figure


def marginals(table: pd.DataFrame, mask: pd.DataFrame, *, most: int = 12) -> Figure:
    """Observed against imputed values of the columns that lost most, each as a share of its own cells.

    Arguments:
        table: completed table (N, D).
        mask: True = observed, (N, D).
        most: most columns to show.

    Example:
        >>> table = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
        >>> len(marginals(table, pd.DataFrame({"a": [True, True, False]})).axes)
        1
    """
    lost = (~mask).sum().sort_values(ascending=False, kind="stable")
    names = list(lost[lost > 0].index[:most])
    columns = max(1, min(4, len(names)))
    lines = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(2.4 * columns + 0.4, 2.0 * lines + 0.5), layout="constrained")
    figure.suptitle(_finding(table, mask, names), fontsize=11)
    figure.supylabel("share of the column's observed or imputed cells", fontsize=9)
    for i, name in enumerate(names):
        _marginal(figure.add_subplot(lines, columns, i + 1), table[name], mask[name], str(name))
    return figure


def _finding(table: pd.DataFrame, mask: pd.DataFrame, names: list[Any]) -> str:
    """Title: which column's imputed values lie farthest from its observed ones, in standard deviations of these."""
    shifts = {}
    for name in names:
        values, seen = table[name], mask[name]
        if pd.api.types.is_numeric_dtype(values) and seen.sum() > 1 and values[seen].std() > 0:
            shifts[name] = float((values[~seen].mean() - values[seen].mean()) / values[seen].std())
    title = "Observed (blue) and imputed (orange) values"
    if not shifts:
        return title
    name = max(shifts, key=lambda n: abs(shifts[n]))
    return f"{title}:\nimputed means differ most in {name}, by {shifts[name]:+.1f} sd"


def _marginal(axes: Any, values: pd.Series, seen: pd.Series, name: str) -> None:
    parts = [(values[seen], OBSERVED), (values[~seen], IMPUTED)]
    if pd.api.types.is_numeric_dtype(values):
        # Outliers would squeeze everything else into one bar.
        low, high = np.quantile(values, [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, 31)
        for part, colour in parts:
            weights = np.full(len(part), 1 / max(1, len(part)))
            axes.hist(np.clip(part, edges[0], edges[-1]), edges, weights=weights, color=colour, alpha=0.55)
    else:
        levels = sorted(values.unique().tolist(), key=str)[:12]
        for shift, (part, colour) in zip((-0.2, 0.2), parts, strict=True):
            share = part.value_counts(normalize=True).reindex(levels).fillna(0)
            axes.bar(np.arange(len(levels)) + shift, share, 0.4, color=colour, alpha=0.8)
        axes.set_xticks(range(len(levels)), [str(v) for v in levels])
    short = name if len(name) <= 16 else f"{name[:15]}…"
    axes.set_title(f"{short}: {int((~seen).sum())} imputed", fontsize=9)
    axes.tick_params(labelsize=8)


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
