"""Class counts, class shares and other measures: before and after a tilt, over a setting, or of several methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latentebm.plots.style import AFTER, BEFORE, COLOURS, new_figure, tidy_legend, verbatim

__all__ = ["plot_class_counts", "plot_methods", "plot_share_intervals", "plot_shares", "plot_study", "plot_training"]

SEEN = "class, as the classifier reads it"


def plot_class_counts(biased: Sequence[int], reference: Sequence[int], names: Sequence[str]) -> Figure:
    """Images per class of the biased and the reference set, side by side.

    Example:
        >>> [ax.get_title() for ax in plot_class_counts([5, 1], [2, 2], ["a", "b"]).axes]
        ['Biased set: 83 % is a, 17 % is b', 'Reference: 2 per class']
    """
    figure, axes = new_figure(7, 3.2, columns=2)
    total = max(1, sum(biased))
    most, least = int(np.argmax(biased)), int(np.argmin(biased))
    few, many = min(reference), max(reference)
    shown = verbatim(names)
    titles = (
        f"Biased set: {100 * biased[most] / total:.0f} % is {shown[most]}, "
        f"{100 * biased[least] / total:.0f} % is {shown[least]}",
        f"Reference: {few if few == many else f'{few}–{many}'} per class",
    )
    for ax, counts, colour, title in zip(axes, (biased, reference), (BEFORE, AFTER), titles, strict=True):
        bars = ax.bar(range(len(names)), counts, color=colour)
        ax.bar_label(bars, [f"{c:,}" for c in counts], fontsize=8)
        ax.margins(y=0.12)
        ax.set_xticks(range(len(names)), verbatim(names))
        ax.set(xlabel="class", ylabel="images")
        ax.set_title(title, fontsize=10)
    return figure


def plot_shares(
    before: Sequence[float], after: Sequence[float], target: Sequence[float], names: Sequence[str], title: str
) -> Figure:
    """Class shares of draws before and after the tilt, beside the target.

    Example:
        >>> figure = plot_shares([0.9, 0.1], [0.5, 0.5], [0.5, 0.5], ["a", "b"], "balanced")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['90', '10', '50', '50']
    """
    figure, (ax,) = new_figure(6, 3.6)
    x, width = np.arange(len(names)), 0.38
    for offset, shares, colour, label in ((-0.5, before, BEFORE, "untilted"), (0.5, after, AFTER, "tilted")):
        bars = ax.bar(x + offset * width, 100 * np.array(shares), width, color=colour, label=label)
        ax.bar_label(bars, fmt="%.0f", fontsize=8, label_type="center", color="white")
    lows, highs = x - width * 1.1, x + width * 1.1
    ax.hlines(100 * np.array(target), lows, highs, colors="black", linestyles="--", lw=1.2, label="target")
    ax.set_xticks(x, verbatim(names))
    ax.set(xlabel=SEEN, ylabel="share of draws (%)")
    ax.set_ylim(0, 118 * max(*before, *after, *target))
    ax.legend(fontsize=8, ncols=3, loc="upper right")
    ax.set_title(title, fontsize=10)
    return figure


def plot_training(losses: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Losses along fits, each in axes of its own.

    Example:
        >>> [ax.get_ylabel() for ax in plot_training({"model (nats)": [3.0, 2.0], "energy (nats)": [1.0]}, "").axes]
        ['model (nats)', 'energy (nats)']
    """
    figure, axes = new_figure(7, 2.6, title, columns=len(losses))
    for ax, (name, values) in zip(axes, losses.items(), strict=True):
        ax.plot(range(1, len(values) + 1), values, "o-" if len(values) < 2 else "-", color=AFTER)
        ax.set(xlabel="checks along the fit", ylabel=name)
    return figure


def plot_share_intervals(
    shares: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]],
    target: Sequence[float],
    names: Sequence[str],
    title: str,
) -> Figure:
    """Class shares by method, at most eight, each with the ends of its interval, beside the target."""
    figure, (ax,) = new_figure(7.2, 3.8)
    x, step = np.arange(len(names)), 0.8 / len(shares)
    for i, (method, values) in enumerate(shares.items()):
        ends, p = 100 * np.array(intervals[method]), 100 * np.array(values)
        bars = np.stack([p - ends[:, 0], ends[:, 1] - p]).clip(0)
        place = x + (i - (len(shares) - 1) / 2) * step
        style: dict[str, Any] = {"color": (BEFORE, *COLOURS)[i % 9], "marker": "oDs^vP*X"[i % 8], "label": method}
        ax.errorbar(place, p, bars, ls="none", ms=5, capsize=2, lw=1.4, **style)
    ax.hlines(100 * np.array(target), x - 0.45, x + 0.45, colors="black", linestyles="--", lw=1.2, label="target")
    ax.set_xticks(x, verbatim(names))
    ax.set(xlabel=SEEN, ylabel="share of draws (%)")
    ax.set_ylim(bottom=0)
    tidy_legend(ax, markerscale=1, loc="upper left", bbox_to_anchor=(1, 1))
    ax.set_title(title, fontsize=10)
    return figure


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
    """
    figure, axes = new_figure(2.6 * len(panels) + 0.4, 3.0, title, columns=len(panels))
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
    """Measures of several methods: one row per method, its name the index, and one panel per measure, with its label.

    Missing measures are left out; `intervals` names the columns of a measure's lower and upper end.
    """
    width, height = 1.4 + 2.6 * len(panels), 0.9 + 0.3 * len(table)
    figure, axes = new_figure(width, height, title, columns=len(panels), sharey=True)
    place = np.arange(len(table))
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        values = table[column].to_numpy(dtype=float)
        ends = (intervals or {}).get(column, (column, column))
        low, high = (table[end].to_numpy(dtype=float) for end in ends)
        bars = np.stack([values - low, high - values]).clip(0)
        ax.errorbar(values, place, xerr=bars, ls="none", marker="o", ms=5, capsize=2, lw=1.4, color=AFTER)
        most = float(np.nanmax(high))
        ax.set_xlim(-0.04 * most, 1.12 * most)  # a value of zero is a whole dot
        ax.grid(axis="y", lw=0.4, color="#CCCCCC")
        ax.set_xlabel(label, fontsize=9)
    axes[0].set_yticks(place, table.index, fontsize=9)
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    return figure
