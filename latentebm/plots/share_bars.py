"""Class counts and class shares, before and after a tilt or of several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from latentebm.plots.style import AFTER, BEFORE, COLOURS, new_figure, tidy_legend

__all__ = ["plot_class_counts", "plot_share_intervals", "plot_shares"]

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
    titles = (
        f"Biased set: {100 * biased[most] / total:.0f} % is {names[most]}, "
        f"{100 * biased[least] / total:.0f} % is {names[least]}",
        f"Reference: {few if few == many else f'{few}–{many}'} per class",
    )
    for ax, counts, colour, title in zip(axes, (biased, reference), (BEFORE, AFTER), titles, strict=True):
        bars = ax.bar(range(len(names)), counts, color=colour)
        ax.bar_label(bars, [f"{c:,}" for c in counts], fontsize=8)
        ax.margins(y=0.12)
        ax.set_xticks(range(len(names)), names)
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
    ax.set_xticks(x, names)
    ax.set(xlabel=SEEN, ylabel="share of draws (%)")
    ax.set_ylim(0, 118 * max(*before, *after, *target))
    ax.legend(fontsize=8, ncols=3, loc="upper right")
    ax.set_title(title, fontsize=10)
    return figure


def plot_share_intervals(
    shares: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[tuple[float, float]]],
    target: Sequence[float],
    names: Sequence[str],
    title: str,
) -> Figure:
    """Class shares by method, at most eight, each with the ends of its interval, beside the target.

    Example:
        >>> shares, intervals = {"prior": [0.7, 0.3]}, {"prior": [(0.6, 0.8), (0.2, 0.4)]}
        >>> figure = plot_share_intervals(shares, intervals, [0.5, 0.5], ["a", "b"], "biased")
        >>> [text.get_text() for text in figure.axes[0].get_legend().texts]
        ['target', 'prior']
    """
    figure, (ax,) = new_figure(7.2, 3.8)
    x, step = np.arange(len(names)), 0.8 / len(shares)
    for i, (method, values) in enumerate(shares.items()):
        ends, p = 100 * np.array(intervals[method]), 100 * np.array(values)
        bars = np.stack([p - ends[:, 0], ends[:, 1] - p]).clip(0)
        place = x + (i - (len(shares) - 1) / 2) * step
        style: dict[str, Any] = {
            "color": BEFORE if i == 0 else COLOURS[(i - 1) % len(COLOURS)],
            "marker": "oDs^vP*X"[i % 8],
        }
        ax.errorbar(place, p, bars, ls="none", ms=5, capsize=2, lw=1.4, label=method, **style)
    ax.hlines(100 * np.array(target), x - 0.45, x + 0.45, colors="black", linestyles="--", lw=1.2, label="target")
    ax.set_xticks(x, names)
    ax.set(xlabel=SEEN, ylabel="share of draws (%)")
    ax.set_ylim(bottom=0)
    tidy_legend(ax, markerscale=1, loc="upper left", bbox_to_anchor=(1, 1))
    ax.set_title(title, fontsize=10)
    return figure
