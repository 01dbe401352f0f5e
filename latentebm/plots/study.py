"""Measures over a setting, and measures of several methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latentebm.plots.style import AFTER, new_figure

__all__ = ["plot_methods", "plot_study"]


def plot_study(
    table: pd.DataFrame,
    x: str,
    panels: Mapping[str, str],
    *,
    before: Mapping[str, Any],
    title: str,
    x_label: str,
    log: Collection[str] = (),
) -> Figure:
    """Curves of several measures over one setting: a dot for each repeat, a line through the means, bars of one sd.

    Arguments:
        table: one row for each value of `x` and repeat.
        x: column of the setting; drawn evenly spaced, since reference sizes and strengths are few and uneven.
        panels: column and label of each measure.
        before: the same measures without a tilt, drawn as a dashed line where known.
        log: measures drawn on a logarithmic scale.

    Example:
        >>> table = pd.DataFrame({"size": [5, 5, 10], "tv": [0.2, 0.1, 0.05]})
        >>> figure = plot_study(table, "size", {"tv": "TV"}, before={"tv": 0.3}, title="more is better", x_label="size")
        >>> figure.axes[0].get_ylabel()
        'TV'
    """
    figure, axes = new_figure(2.6 * len(panels) + 0.4, 3.0, columns=len(panels))
    values = sorted(table[x].unique())
    place = table[x].map({v: i for i, v in enumerate(values)})
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        by = table.astype({column: float}).groupby(x)[column]
        ax.plot(place, table[column], "o", ms=3, alpha=0.35, color=AFTER, mew=0)
        ax.errorbar(range(len(values)), by.mean(), by.std().fillna(0), color=AFTER, marker="o", ms=4, capsize=2, lw=1.4)
        if column in before:
            _untilted(ax, before[column], by.mean().to_numpy())
        ax.set_xticks(range(len(values)), [f"{v:g}" for v in values], fontsize=9)
        if column in log:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, 1.15 * max(float(table[column].max()), before.get(column, 0.0)))
        ax.set_xlabel(x_label, fontsize=9)
        ax.set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _untilted(ax: Axes, value: float, curve: np.ndarray) -> None:
    """Dashed line, named at the end that the curve is further from, on the side that the curve is not."""
    ax.axhline(value, color="black", ls="--", lw=1)
    end = 0 if abs(curve[0] - value) > abs(curve[-1] - value) else len(curve) - 1
    side = 3 if curve[end] <= value else -10
    style: dict[str, Any] = {"xytext": (0, side), "textcoords": "offset points", "ha": "left" if end == 0 else "right"}
    ax.annotate("untilted", (end, value), fontsize=8, **style)


def plot_methods(
    table: pd.DataFrame,
    panels: Mapping[str, str],
    title: str,
    *,
    intervals: Mapping[str, tuple[str, str]] | None = None,
) -> Figure:
    """Measures of several methods: one row per method in the table's order, one panel per measure.

    Arguments:
        table: one row per method, its name the index; missing measures are left out.
        panels: column and label of each measure.
        intervals: columns of the lower and upper end of a measure, by the measure's column.

    Example:
        >>> table = pd.DataFrame({"tv": [0.2, 0.1], "low": [0.1, 0.0], "high": [0.3, 0.2]}, index=["prior", "tilt"])
        >>> figure = plot_methods(table, {"tv": "total variation"}, "better", intervals={"tv": ("low", "high")})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['prior', 'tilt']
    """
    figure, axes = new_figure(1.4 + 2.6 * len(panels), 0.9 + 0.3 * len(table), columns=len(panels), sharey=True)
    place = np.arange(len(table))
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        values = table[column].to_numpy(dtype=float)
        low, high = (values, values)
        if intervals and column in intervals:
            low, high = (table[end].to_numpy(dtype=float) for end in intervals[column])
        bars = np.stack([values - low, high - values]).clip(0)
        ax.errorbar(values, place, xerr=bars, ls="none", marker="o", ms=5, capsize=2, lw=1.4, color=AFTER)
        most = float(np.nanmax(high))
        ax.set_xlim(-0.04 * most, 1.12 * most)  # a value of zero is a whole dot
        ax.grid(axis="y", lw=0.4, color="#CCCCCC")
        ax.set_xlabel(label, fontsize=9)
    axes[0].set_yticks(place, table.index, fontsize=9)
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    figure.suptitle(title, fontsize=10)
    return figure
