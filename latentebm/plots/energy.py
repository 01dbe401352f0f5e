"""A tilt's energy: maps of it over a plane, paths of chains on them, and its log-weights against the true ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter
from torch import Tensor

from latentebm.plots.latents import Plane, label_plane
from latentebm.plots.lettering import drawable, fonts, verbatim
from latentebm.plots.style import AFTER, COLOURS, Place, dots, many, new_figure, tidy_legend

__all__ = ["plot_calibration", "plot_energies", "plot_energy", "plot_paths"]

LABEL = "energy (nats); low = more probable"
SPAN, GROUPS = (0.01, 0.99), 24  # quantiles of the log-ratio that a calibration shows, and groups it falls into
SMOOTHING = 0.8  # cells: closes the gaps of sparsely filled cells and leaves the shape of the map


# Cell centres in x and y, and the energy of each cell, NaN where there are hardly any base draws.
_Map = tuple[np.ndarray, np.ndarray, np.ndarray]


@fonts()
def plot_energy(
    plane: Plane,
    base: Tensor,
    energy: Tensor,
    draws: Tensor,
    title: str = "",
    bins: int = 60,
    shown: int = 400,
    *,
    ax: Place = None,
) -> Figure:
    r"""Map of the tilt over a plane: energy of the base draws that fall in each cell, and some tilted draws.

    A cell's value is the effective energy of the base draws (K, d), with energies (K,) in nats, that project there,
    :math:`-\log \mathrm{mean}\, e^{-E}`; in two dimensions that is E itself.
    """
    figure, (place,) = new_figure(5.8, 4.6, ax=ax)
    cells = _map(plane, base, energy, bins)
    _bar(figure, _contour(place, cells, _levels([cells])), [place])
    style = {"s": 6, "color": "white", "edgecolors": "black", "linewidths": 0.4}
    dots(place, plane(draws[:shown]), label="tilted draws", **style)
    # Above the map, of which it would hide a corner, and the title above both.
    tidy_legend(place, loc="lower right", bbox_to_anchor=(1.01, 0.99), frameon=False)
    if title:
        place.set_title(drawable(title), fontsize=10, pad=20)
    label_plane(place, plane)
    return figure


@fonts()
def plot_energies(
    plane: Plane,
    base: Tensor,
    energies: Mapping[str, Tensor],
    title: str = "",
    *,
    columns: int = 3,
    bins: int = 50,
    ax: Place = None,
) -> Figure:
    """Maps of the energies (K,) in nats that several tilts give base draws (K, d), in one scale, each of mean zero."""
    columns = min(columns, len(energies))
    rows = math.ceil(len(energies) / columns)
    width, height = 0.9 + 1.95 * columns, 0.4 + 2.0 * rows
    figure, axes = new_figure(width, height, title, rows, columns, ax=ax, sharex=True, sharey=True)
    maps = [_map(plane, base, energy - energy.mean(), bins) for energy in energies.values()]
    levels = _levels(maps, tail=0.06)  # the strongest tilt's extremes would leave the others flat
    for k, (panel, name, cells) in enumerate(zip(axes, energies, maps, strict=False)):
        drawn = _contour(panel, cells, levels)
        panel.set_title(verbatim([name], longest=24)[0], fontsize=9)
        if k + columns >= len(maps):
            panel.set_xlabel(plane.labels[0], fontsize=9)
            panel.tick_params(labelbottom=True)
        if k % columns == 0:
            panel.set_ylabel(plane.labels[1], fontsize=9)
    for unused in axes[len(maps) :]:
        unused.set_axis_off()
    _bar(figure, drawn, axes)
    return figure


def _bar(figure: Figure, drawn: QuadContourSet, axes: list[Axes]) -> None:
    levels = np.asarray(drawn.levels)
    low, high = float(levels[0]), float(levels[-1])
    ticks = [t for t in MaxNLocator(7).tick_values(low, high) if low <= t <= high]  # round numbers, so no −0.0
    figure.colorbar(drawn, ax=axes, label=LABEL, ticks=ticks)


@fonts()
def plot_paths(
    plane: Plane,
    trace: Tensor,
    title: str = "",
    *,
    base: Tensor | None = None,
    energy: Tensor | None = None,
    ax: Place = None,
) -> Figure:
    """Paths of chains (T, chains, d) in a plane, from open circles to filled ones.

    Beneath them lies a map of energies or potentials (K,) in nats, if base draws (K, d) and theirs are given.

    Example:
        >>> import torch
        >>> z = torch.randn(5, 3, 2)
        >>> len(plot_paths(Plane(z.flatten(0, 1)), z, "three walks").axes[0].lines)  # a path and its two ends each
        9
    """
    figure, (place,) = new_figure(5.2 if base is None else 5.8, 4.4, title, ax=ax)
    if base is not None and energy is not None:
        cells = _map(plane, base, energy, 60)
        _bar(figure, _contour(place, cells, _levels([cells]), cmap="Greys_r"), [place])
    for c in range(trace.shape[1]):
        path = plane(trace[:, c])
        colour = COLOURS[c % len(COLOURS)]
        place.plot(*path.T, lw=0.9, alpha=0.8, color=colour)
        place.plot(*path[0], "o", ms=6, mfc="white", color=colour)
        place.plot(*path[-1], "o", ms=6, color=colour)
    label_plane(place, plane)
    return figure


def _map(plane: Plane, base: Tensor, energy: Tensor, bins: int) -> _Map:
    xy = plane(base)
    weight = np.exp(-(energy - energy.min()).cpu().numpy().astype(np.float64))
    span = [(-3.5, 3.5)] * 2 if plane.dim <= 2 else np.quantile(xy, [0.002, 0.998], axis=0).T.tolist()
    count, x, y = np.histogram2d(xy[:, 0], xy[:, 1], bins=bins, range=span)
    total, _, _ = np.histogram2d(xy[:, 0], xy[:, 1], bins=bins, range=span, weights=weight)
    count, total = gaussian_filter(count, SMOOTHING), gaussian_filter(total, SMOOTHING)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(count >= 1, -np.log(total / count), np.nan) + float(energy.min())
    return (x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2, value.T


def _levels(maps: list[_Map], tail: float = 0.02) -> np.ndarray:
    low, high = np.nanquantile(np.stack([value for _, _, value in maps]), [tail, 1 - tail])
    return np.linspace(low, high if high > low else low + 1, 14)


def _contour(ax: Axes, cells: _Map, levels: np.ndarray, cmap: str = "viridis") -> QuadContourSet:
    x, y, value = cells
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    return ax.contourf(x, y, value, levels=levels, cmap=cmap, extend="both")


@fonts()
def plot_calibration(
    log_ratio: Tensor,
    energies: Mapping[str, Tensor],
    penalties: Mapping[str, float],
    title: str = "",
    *,
    ax: Place = None,
) -> Figure:
    r"""Fitted log-weights −E against the true log-ratio, with the optimum of the penalised Jensen objective.

    .. math:: -E^*(z) = \frac{1}{2\lambda} \tanh\Big(\tfrac12 \log\frac{q_{ref}(z)}{p_0(z)}\Big)

    At some points stand log q_ref/p_0 (N,) and fitted energies (N,), in nats, with one panel for each name. `penalties`
    are the λ of those fitted by the Jensen objective, whose optimum and bounds ±1/(2λ) are drawn.
    """
    rows, columns = many(len(energies))
    shared: dict[str, Any] = {"ax": ax, "sharex": True, "sharey": True}
    figure, axes = new_figure(0.6 + 2.1 * columns, 0.4 + 2.6 * rows, title, rows, columns, **shared)
    for unused in axes[len(energies) :]:
        unused.set_axis_off()
    r = log_ratio.cpu().numpy()
    low, high = np.quantile(r, SPAN)
    line = np.linspace(low, high, 200)
    for k, (panel, (name, energy)) in enumerate(zip(axes, energies.items(), strict=False)):
        panel.plot(line, line, color="black", ls="--", lw=1.2, label="true log-ratio")
        if name in penalties:
            bound = 1 / (2 * penalties[name])
            panel.plot(line, bound * np.tanh(line / 2), color="#D55E00", lw=1.3, zorder=3, label="Jensen optimum")
            panel.axhspan(-bound, bound, color="#D55E00", alpha=0.07, lw=0)
        _quantiles(panel, r, -energy.detach().cpu().numpy(), np.linspace(low, high, GROUPS + 1))
        panel.set_xlabel(r"true $\log q_{ref}/p_0$ (nats)", fontsize=9)
        panel.set_title(verbatim([name], longest=24)[0], fontsize=9)
        if k % columns == 0:
            panel.set_ylabel("fitted log-weight −E (nats)", fontsize=9)
    first = max(range(len(energies)), key=lambda k: len(axes[k].lines))  # the one with every kind of line
    tidy_legend(axes[first], loc="lower right", markerscale=1)
    return figure


def _quantiles(ax: Axes, r: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> None:
    """Median of the weights in each group of log-ratios, and a band from the 10th to the 90th percentile."""
    group = np.digitize(r, edges) - 1
    kept = [g for g in range(len(edges) - 1) if (group == g).sum() >= 5]
    lower, middle, upper = np.array([np.quantile(weight[group == g], [0.1, 0.5, 0.9]) for g in kept]).reshape(-1, 3).T
    centres = (edges[:-1] + edges[1:])[kept] / 2
    ax.fill_between(centres, lower, upper, color=AFTER, alpha=0.25, lw=0)
    ax.plot(centres, middle, color=AFTER, lw=2.4, label="fitted, median and 80 %")
