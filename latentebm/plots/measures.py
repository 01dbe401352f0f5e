"""Class counts, class shares and other measures: before and after a tilt, over a setting, or of several methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latentebm.checks import fail
from latentebm.plots.lettering import fonts, name_ticks, verbatim
from latentebm.plots.style import AFTER, BEFORE, COLOURS, Place, many, new_figure, tidy_legend

__all__ = ["plot_class_counts", "plot_methods", "plot_share_intervals", "plot_shares", "plot_study", "plot_training"]

SEEN = "class, as classifiers read it"
LABELLED = 16  # bars or pairs of bars whose numbers still find room


@fonts()
def plot_class_counts(
    biased: Sequence[int], reference: Sequence[int], names: Sequence[str], title: str = "", *, ax: Place = None
) -> Figure:
    """Images per class of the biased and the reference set, side by side.

    Example:
        >>> [ax.get_title() for ax in plot_class_counts([5, 1], [2, 2], ["a", "b"]).axes]
        ['Biased: 83 % a, 17 % b', 'Reference: 2 per class']
    """
    figure, axes = new_figure(6.4, 3.2, title, columns=2, ax=ax)
    total = max(1, sum(biased))
    most, least = int(np.argmax(biased)), int(np.argmin(biased))
    few, many = min(reference), max(reference)
    shown = verbatim(names)
    titles = (
        f"Biased: {100 * biased[most] / total:.0f} % {shown[most]}, {100 * biased[least] / total:.0f} % {shown[least]}",
        f"Reference: {few if few == many else f'{few}–{many}'} per class",
    )
    for panel, counts, colour, words in zip(axes, (biased, reference), (BEFORE, AFTER), titles, strict=True):
        bars = panel.bar(range(len(names)), counts, color=colour)
        if len(names) <= LABELLED // 2:
            panel.bar_label(bars, [f"{c:,}" for c in counts], fontsize=8)
        panel.margins(y=0.12)
        name_ticks(panel, names)
        panel.set(xlabel="class", ylabel="images")
        panel.set_title(words, fontsize=9)
    return figure


@fonts()
def plot_shares(
    before: Sequence[float],
    after: Sequence[float],
    target: Sequence[float],
    names: Sequence[str],
    title: str = "",
    *,
    intervals: Sequence[tuple[float, float]] | None = None,
    ax: Place = None,
) -> Figure:
    """Class shares of draws before and after the tilt, the latter with the ends of `intervals`, beside the target.

    Example:
        >>> figure = plot_shares([0.9, 0.1], [0.5, 0.5], [0.5, 0.5], ["a", "b"], "balanced")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['90', '10', '50', '50']
    """
    figure, (place,) = new_figure(6, 3.6, title, ax=ax)
    x, width = np.arange(len(names)), 0.38
    for offset, shares, colour, label in ((-0.5, before, BEFORE, "untilted"), (0.5, after, AFTER, "tilted")):
        bars = place.bar(x + offset * width, 100 * np.array(shares), width, color=colour, label=label)
        if len(names) <= LABELLED:
            _foot(place, bars, 100 * max(*before, *after, *target))
    if intervals is not None:
        ends = 100 * np.abs(np.array(intervals).T - np.array(after))
        place.errorbar(x + width / 2, 100 * np.array(after), ends, ls="none", color="black", capsize=2, lw=1)
    lows, highs = x - width * 1.1, x + width * 1.1
    place.hlines(100 * np.array(target), lows, highs, colors="black", linestyles="--", lw=1.2, label="target")
    name_ticks(place, names)
    place.set(xlabel=SEEN, ylabel="share of draws (%)")
    place.set_ylim(0, 118 * max(*before, *after, *target, *(high for _, high in intervals or ())))
    place.legend(fontsize=8, ncols=3, loc="upper right")
    return figure


def _foot(ax: Axes, bars: BarContainer, most: float) -> None:
    """Numbers at the foot of bars, since the end may carry an interval; above those too short to hold them."""
    for bar in bars:
        middle, height = bar.get_x() + bar.get_width() / 2, bar.get_height()
        inside = height > 0.1 * most
        style: dict[str, Any] = {"ha": "center", "fontsize": 8, "color": "white" if inside else "black"}
        ax.annotate(f"{height:.0f}", (middle, 0 if inside else height), (0, 2), textcoords="offset points", **style)


@fonts()
def plot_training(losses: Mapping[str, Sequence[float]], title: str = "", *, ax: Place = None) -> Figure:
    """Losses along fits, each in axes of its own; a fit without any is left out.

    Example:
        >>> [ax.get_ylabel() for ax in plot_training({"model (nats)": [3.0, 2.0], "energy (nats)": [1.0]}).axes]
        ['model (nats)', 'energy (nats)']
    """
    kept = {name: values for name, values in losses.items() if len(values)}
    if not kept:
        raise fail("losses", "a fit with at least one loss", "none", "pass the losses of a fit")
    figure, axes = new_figure(6.4, 2.6, title, columns=len(kept), ax=ax)
    for panel, (name, values) in zip(axes, kept.items(), strict=True):
        panel.plot(range(1, len(values) + 1), values, "o-" if len(values) < 2 else "-", color=AFTER)
        panel.set_xlabel("checks along the fit", fontsize=9)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.set_ylabel(name, fontsize=9)
    return figure


@fonts()
def plot_share_intervals(
    shares: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]],
    target: Sequence[float],
    names: Sequence[str],
    title: str = "",
    *,
    ax: Place = None,
) -> Figure:
    """Class shares by method, at most eight, each with the ends of its interval, beside the target."""
    figure, (panel,) = new_figure(6.6, 3.8, title, ax=ax)
    x, step = np.arange(len(names)), 0.8 / len(shares)
    for i, (method, label) in enumerate(zip(shares, verbatim(list(shares)), strict=True)):
        values = shares[method]
        ends, p = 100 * np.array(intervals[method]), 100 * np.array(values)
        bars = np.stack([p - ends[:, 0], ends[:, 1] - p]).clip(0)
        place = x + (i - (len(shares) - 1) / 2) * step
        style: dict[str, Any] = {"color": (BEFORE, *COLOURS)[i % 9], "marker": "oDs^vP*X"[i % 8], "label": label}
        panel.errorbar(place, p, bars, ls="none", ms=5, capsize=2, lw=1.4, **style)
    panel.hlines(100 * np.array(target), x - 0.45, x + 0.45, colors="black", linestyles="--", lw=1.2, label="target")
    name_ticks(panel, names)
    panel.set(xlabel=SEEN, ylabel="share of draws (%)")
    panel.set_ylim(bottom=0)
    tidy_legend(panel, markerscale=1, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@fonts()
def plot_study(
    table: pd.DataFrame,
    x: str,
    panels: Mapping[str, str],
    *,
    before: Mapping[str, Any],
    title: str = "",
    x_label: str = "",
    log: Collection[str] = (),
    ax: Place = None,
) -> Figure:
    """Curves of several measures over one setting: a dot for each repeat, a line through the means, bars of one sd.

    Arguments:
        table: one row for each value of `x` and repeat.
        x: column of the setting; drawn evenly spaced, since reference sizes and strengths are few and uneven.
        panels: column and label of each measure.
        before: the same measures without a tilt, drawn as a dashed line where known.
        title: the finding.
        x_label: of the setting; the column's name by default.
        log: measures drawn on a logarithmic scale.
        ax: axes to draw in.
    """
    rows, columns = many(len(panels), most=3 if len(panels) == 3 else 2)
    figure, axes = new_figure(6.4 if columns > 1 else 3.4, 0.4 + 2.4 * rows, title, rows, columns, ax=ax)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    values = sorted(table[x].unique())
    place = table[x].map({v: i for i, v in enumerate(values)})
    for panel, (column, label) in zip(axes, panels.items(), strict=False):
        by = table.astype({column: float}).groupby(x)[column]
        panel.plot(place, table[column], "o", ms=3, alpha=0.35, color=AFTER, mew=0)
        mean, sd = by.mean(), by.std().fillna(0)
        panel.errorbar(range(len(values)), mean, sd, color=AFTER, marker="o", ms=4, capsize=2, lw=1.4)
        if column in before:
            _untilted(panel, before[column], mean.to_numpy())
        name_ticks(panel, [f"{v:g}" for v in values])
        if column in log:
            panel.set_yscale("log")
        else:
            panel.set_ylim(0, 1.15 * max(float(table[column].max()), before.get(column, 0.0)))
        panel.set_xlabel(x_label or x, fontsize=9)
        panel.set_ylabel(label, fontsize=9)
    return figure


def _untilted(ax: Axes, value: float, curve: np.ndarray) -> None:
    """Dashed line, named at the end that the curve is further from, on the side that the curve is not."""
    ax.axhline(value, color="black", ls="--", lw=1)
    end = 0 if abs(curve[0] - value) > abs(curve[-1] - value) else len(curve) - 1
    side = 3 if curve[end] <= value else -10
    style: dict[str, Any] = {"xytext": (0, side), "textcoords": "offset points", "ha": "left" if end == 0 else "right"}
    ax.annotate("untilted", (end, value), fontsize=8, **style)


@fonts()
def plot_methods(
    table: pd.DataFrame,
    panels: Mapping[str, str],
    title: str = "",
    *,
    intervals: Mapping[str, tuple[str, str]] | None = None,
    ax: Place = None,
) -> Figure:
    """Measures of several methods: one row per method, its name the index, and one panel per measure, with its label.

    Missing measures are left out; `intervals` names the columns of a measure's lower and upper end.
    """
    rows, columns = many(len(panels))
    width, height = 1.4 + 1.75 * columns, rows * (0.9 + 0.3 * len(table))
    figure, axes = new_figure(width, height, title, rows, columns, ax=ax, sharey=True)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    place = np.arange(len(table))
    for panel, (column, label) in zip(axes, panels.items(), strict=False):
        values = table[column].to_numpy(dtype=float)
        ends = (intervals or {}).get(column, (column, column))
        low, high = (table[end].to_numpy(dtype=float) for end in ends)
        bars = np.stack([values - low, high - values]).clip(0)
        panel.errorbar(values, place, xerr=bars, ls="none", marker="o", ms=5, capsize=2, lw=1.4, color=AFTER)
        most = float(np.nanmax(high))
        panel.set_xlim(-0.04 * most, 1.12 * most)  # a value of zero is a whole dot
        panel.grid(axis="y", lw=0.4, color="#CCCCCC")
        panel.set_xlabel(label, fontsize=9)
    for first in axes[::columns]:
        first.set_yticks(place, verbatim(table.index), fontsize=9)
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    return figure
