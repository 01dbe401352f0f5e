"""Quantities of a table, before and after, beside what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from latentebm.plots.lettering import fonts, verbatim
from latentebm.plots.style import AFTER, BEFORE, Place, new_figure, tidy_legend

__all__ = ["plot_targets"]

MOST = 20


@fonts()
def plot_targets(targets: Sequence[Mapping[str, Any]], title: str = "", *, ax: Place = None) -> Figure:
    """Each target before and after a tilt, with its interval and what is wanted; the first 20 of them.

    A target has a ``name``, what is ``wanted`` (or None), and ``untilted`` and ``tilted``, each with ``value``, ``low``
    and ``high``.

    Example:
        >>> side = {"value": 0.2, "low": 0.1, "high": 0.3}
        >>> target = {"name": "gap", "wanted": 0.0, "untilted": {**side, "value": 0.3}, "tilted": side}
        >>> [tick.get_text() for tick in plot_targets([target]).axes[0].get_yticklabels()]
        ['gap']
    """
    shown = list(targets)[:MOST]
    places = np.arange(len(shown))[::-1]
    figure, (panel,) = new_figure(6.4, 1.4 + 0.35 * len(shown), ax=ax)
    for shift, stage, colour in ((0.15, "untilted", BEFORE), (-0.15, "tilted", AFTER)):
        value, low, high = (np.array([t[stage][key] for t in shown]) for key in ("value", "low", "high"))
        ends = np.abs(np.stack([low, high]) - value)
        panel.errorbar(value, places + shift, xerr=ends, fmt="o", color=colour, label=stage, capsize=2)
    wanted = [(t["wanted"], y) for t, y in zip(shown, places, strict=True) if t["wanted"] is not None]
    if wanted:
        x, y = np.array(wanted).T
        panel.scatter(x, y, marker="|", s=220, color="black", label="wanted")
    panel.set_yticks(places, verbatim([t["name"] for t in shown], longest=40))
    panel.set(xlabel="value", ylim=(-0.5, len(shown) - 0.5))
    tidy_legend(panel, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, markerscale=0.8, frameon=False)
    if title:
        panel.set_title(title, fontsize=10, pad=20)
    return figure
