"""Maps of a tilt's energy over a plane, and paths of chains on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from torch import Tensor

from latentebm.plots.plane import Plane, label_plane
from latentebm.plots.style import COLOURS, dots, new_figure, tidy_legend

__all__ = ["plot_energies", "plot_energy", "plot_paths"]

LABEL = "energy (nats); low = more probable"
SMOOTHING = 0.8  # cells: closes the gaps of sparsely filled cells and leaves the shape of the map


class _Map(NamedTuple):
    """Cell centres and the energy of each cell, NaN where there are hardly any base draws."""

    x: np.ndarray
    y: np.ndarray
    value: np.ndarray


def plot_energy(
    plane: Plane, base: Tensor, energy: Tensor, draws: Tensor, title: str, bins: int = 60, shown: int = 400
) -> Figure:
    r"""Map of the tilt over a plane: energy of the base draws that fall in each cell, and some tilted draws.

    A cell's value is the effective energy of the base draws (K, d), with energies (K,) in nats, that project there,
    :math:`-\log \mathrm{mean}\, e^{-E}`; in two dimensions that is E itself.

    Example:
        >>> import torch
        >>> z = torch.randn(2000, 2)
        >>> len(plot_energy(Plane(z), z, z[:, 0], z[:9], "tilt to the left", bins=10).axes)
        2
    """
    figure, (ax,) = new_figure(5.8, 4.6)
    cells = _map(plane, base, energy, bins)
    figure.colorbar(_contour(ax, cells, _levels([cells])), ax=ax, label=LABEL, format="%.1f")
    style = {"s": 6, "color": "white", "edgecolors": "black", "linewidths": 0.4}
    dots(ax, plane(draws[:shown]), label="tilted draws", **style)
    # Above the map, of which it would hide a corner.
    tidy_legend(ax, loc="lower right", bbox_to_anchor=(1.01, 0.99), frameon=False)
    label_plane(ax, plane, "")
    figure.suptitle(title, fontsize=10)
    return figure


def plot_energies(
    plane: Plane, base: Tensor, energies: Mapping[str, Tensor], title: str, *, columns: int = 3, bins: int = 50
) -> Figure:
    """Maps of the energies (K,) in nats that several tilts give base draws (K, d), in one scale, each of mean zero.

    Example:
        >>> import torch
        >>> z = torch.randn(2000, 2)
        >>> len(plot_energies(Plane(z), z, {"left": z[:, 0], "right": -z[:, 0]}, "opposite", bins=10).axes)
        3
    """
    columns = min(columns, len(energies))
    rows = math.ceil(len(energies) / columns)
    figure, axes = new_figure(
        0.9 + 2.7 * columns, 0.4 + 2.7 * rows, rows=rows, columns=columns, sharex=True, sharey=True
    )
    maps = [_map(plane, base, energy - energy.mean(), bins) for energy in energies.values()]
    levels = _levels(maps, tail=0.06)  # the strongest tilt's extremes would leave the others flat
    for ax, name, cells in zip(axes, energies, maps, strict=False):
        drawn = _contour(ax, cells, levels)
        ax.set_title(name, fontsize=9)
    for place in range(len(maps), len(axes)):
        axes[place].set_axis_off()
        axes[place - columns].tick_params(labelbottom=True)
    figure.colorbar(drawn, ax=axes, label=LABEL, format="%.1f")
    figure.supxlabel(plane.labels[0], fontsize=10)
    figure.supylabel(plane.labels[1], fontsize=10)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_paths(
    plane: Plane, trace: Tensor, title: str, *, base: Tensor | None = None, energy: Tensor | None = None
) -> Figure:
    """Paths of chains (T, chains, d) in a plane, from open circles to filled ones.

    Beneath them lies a map of energies or potentials (K,) in nats, if base draws (K, d) and theirs are given.

    Example:
        >>> import torch
        >>> z = torch.randn(5, 3, 2)
        >>> len(plot_paths(Plane(z.flatten(0, 1)), z, "three walks").axes[0].lines)  # a path and its two ends each
        9
    """
    figure, (ax,) = new_figure(5.2 if base is None else 5.8, 4.4)
    if base is not None and energy is not None:
        cells = _map(plane, base, energy, 60)
        drawn = _contour(ax, cells, _levels([cells]), cmap="Greys_r")
        figure.colorbar(drawn, ax=ax, label=LABEL, format="%.1f")
    for c in range(trace.shape[1]):
        path = plane(trace[:, c])
        colour = COLOURS[c % len(COLOURS)]
        ax.plot(*path.T, lw=0.9, alpha=0.8, color=colour)
        ax.plot(*path[0], "o", ms=6, mfc="white", color=colour)
        ax.plot(*path[-1], "o", ms=6, color=colour)
    label_plane(ax, plane, title)
    return figure


def _map(plane: Plane, base: Tensor, energy: Tensor, bins: int) -> _Map:
    xy = plane(base)
    weight = np.exp(-(energy - energy.min()).cpu().numpy().astype(np.float64))
    span = [(-3.5, 3.5), (-3.5, 3.5)] if plane.dim <= 2 else [_range(xy[:, 0]), _range(xy[:, 1])]
    count, x, y = np.histogram2d(xy[:, 0], xy[:, 1], bins=bins, range=span)
    total, _, _ = np.histogram2d(xy[:, 0], xy[:, 1], bins=bins, range=span, weights=weight)
    count, total = gaussian_filter(count, SMOOTHING), gaussian_filter(total, SMOOTHING)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(count >= 1, -np.log(total / count), np.nan) + float(energy.min())
    return _Map((x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2, value.T)


def _levels(maps: list[_Map], tail: float = 0.02) -> np.ndarray:
    low, high = np.nanquantile(np.stack([cells.value for cells in maps]), [tail, 1 - tail])
    return np.linspace(low, high if high > low else low + 1, 14)


def _contour(ax: Axes, cells: _Map, levels: np.ndarray, cmap: str = "viridis") -> QuadContourSet:
    drawn = ax.contourf(cells.x, cells.y, cells.value, levels=levels, cmap=cmap, extend="both")
    ax.set_xlim(cells.x[0], cells.x[-1])
    ax.set_ylim(cells.y[0], cells.y[-1])
    return drawn


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.002, 0.998])
    return float(low), float(high)
