"""Figures in one style: readable at half width, colour-blind safe, titles that state the finding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor
from torchvision.utils import make_grid

from latentebm.checks import fail
from latentebm.plots.flow import animate_density, plot_density_flow, plot_energy_curve, plot_particle_flow

__all__ = [
    "Plane",
    "animate_density",
    "plot_class_counts",
    "plot_density_flow",
    "plot_energy",
    "plot_energy_curve",
    "plot_image_grid",
    "plot_latents",
    "plot_overlay",
    "plot_particle_flow",
    "plot_paths",
    "plot_shares",
    "plot_study",
]

# Okabe and Ito (2008), colour-blind safe; further classes repeat with other markers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = ("o", "^", "s", "D")
BEFORE, AFTER = "#999999", "#0072B2"


class Plane:
    """A plane to look at latents in: their own for two dimensions, the first two principal components otherwise.

    Arguments:
        latent: points that span the plane, (N, d).

    Raises:
        ValueError: fewer than two points.

    Example:
        >>> import torch
        >>> Plane(torch.randn(10, 5))(torch.randn(3, 5)).shape
        (3, 2)
    """

    def __init__(self, latent: Tensor) -> None:
        if len(latent) < 2:
            raise fail("latent", "at least 2 points", len(latent), "pass more points")
        self.dim = latent.shape[1]
        self.pca = PCA(2, random_state=0).fit(latent.cpu().numpy()) if self.dim > 2 else None

    def __call__(self, latent: Tensor) -> np.ndarray:
        """Coordinates (N, 2) of points (N, d); one dimension is padded with zeros."""
        points = latent.detach().cpu().numpy()
        if self.pca is not None:
            return np.asarray(self.pca.transform(points))
        return points if self.dim == 2 else np.pad(points, ((0, 0), (0, 1)))

    @property
    def labels(self) -> tuple[str, str]:
        """Axis labels."""
        return ("principal component 1", "principal component 2") if self.dim > 2 else ("$z_1$", "$z_2$")


def _axes(width: float = 5.0, height: float = 4.0, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, columns)).ravel().tolist()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_class_counts(biased: Sequence[int], reference: Sequence[int], names: Sequence[str]) -> Figure:
    """Histograms of the labels of the biased and the reference set, side by side.

    Arguments:
        biased: images per class.
        reference: images per class.
        names: class names.

    Example:
        >>> plot_class_counts([5, 1], [2, 2], ["a", "b"]).axes[0].get_title()
        'Biased set: 83 % is a, 17 % is b'
    """
    figure, axes = _axes(7, 3.2, columns=2)
    total = max(1, sum(biased))
    most, least = int(np.argmax(biased)), int(np.argmin(biased))
    titles = (
        f"Biased set: {100 * biased[most] / total:.0f} % is {names[most]}, "
        f"{100 * biased[least] / total:.0f} % is {names[least]}",
        f"Reference: {min(reference)}–{max(reference)} a class"
        if min(reference) != max(reference)
        else f"Reference: {reference[0]} a class",
    )
    for ax, counts, colour, title in zip(axes, (biased, reference), (BEFORE, AFTER), titles, strict=True):
        bars = ax.bar(range(len(names)), counts, color=colour)
        ax.bar_label(bars, [f"{c:,}" for c in counts], fontsize=8)
        ax.margins(y=0.12)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlabel("class")
        ax.set_ylabel("images")
        ax.set_title(title, fontsize=10)
    return figure


def plot_latents(
    plane: Plane, latent: Tensor, labels: Tensor | None, classes: Sequence[int], names: Sequence[str], title: str
) -> Figure:
    """Scatter of latents in a plane, coloured by class where known.

    Arguments:
        plane: where to look.
        latent: points (N, d).
        labels: class of each, (N,), or None.
        classes: the classes drawn.
        names: their names.
        title: the finding.

    Example:
        >>> import torch
        >>> z = torch.randn(9, 2)
        >>> len(plot_latents(Plane(z), z, torch.arange(9) % 2, [0, 1], ["a", "b"], "two classes").axes)
        1
    """
    figure, (ax,) = _axes(5.2, 4.4)
    points = plane(latent)
    if labels is None:
        _dots(ax, points, s=5, alpha=0.5, color=AFTER, linewidths=0)
    else:
        for k, name in zip(classes, names, strict=True):
            rows = (labels == k).cpu().numpy()
            _dots(ax, points[rows], s=7, alpha=0.6, linewidths=0, label=name, **_class_style(classes.index(k)))
        legend = ax.legend(title="class", markerscale=2.5, fontsize=8, framealpha=0.9, ncols=math.ceil(len(names) / 10))
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    _finish(ax, plane, title)
    return figure


def _class_style(k: int) -> dict[str, Any]:
    return {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k // len(COLOURS) % len(MARKERS)]}


def plot_image_grid(images: Tensor, title: str, columns: int = 16) -> Figure:
    """Grid of images (N, C, H, W) in [0, 1].

    Example:
        >>> import torch
        >>> plot_image_grid(torch.rand(4, 1, 8, 8), "noise", columns=2).axes[0].get_title()
        'noise'
    """
    rows = math.ceil(len(images) / columns)
    figure, (ax,) = _axes(7, 7 * rows / columns + 0.35)
    grid = make_grid(images.cpu(), nrow=columns, padding=1, pad_value=0.35)
    ax.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return figure


def plot_energy(
    plane: Plane, base: Tensor, energy: Tensor, draws: Tensor, title: str, bins: int = 60, shown: int = 400
) -> Figure:
    r"""Map of the tilt over a plane: energy of the base draws that fall in each cell, and some tilted draws.

    The cell's value is the effective energy of everything that projects there,
    :math:`-\log \mathrm{mean}\, e^{-E}`; in two dimensions that is E itself.

    Arguments:
        plane: where to look.
        base: base draws, (K, d).
        energy: their energies, (K,), nats.
        draws: tilted draws, (n, d).
        title: the finding.
        bins: cells a side.
        shown: most draws shown.

    Example:
        >>> import torch
        >>> z = torch.randn(2000, 2)
        >>> len(plot_energy(Plane(z), z, z[:, 0], z[:9], "tilt to the left", bins=10).axes)
        2
    """
    figure, (ax,) = _axes(5.8, 4.6)
    xy = plane(base)
    weight = np.exp(-(energy - energy.min()).cpu().numpy().astype(np.float64))
    extent = [(-3.5, 3.5), (-3.5, 3.5)] if plane.dim <= 2 else [_range(xy[:, 0]), _range(xy[:, 1])]
    count, xe, ye = np.histogram2d(xy[:, 0], xy[:, 1], bins=bins, range=extent)
    total, _, _ = np.histogram2d(xy[:, 0], xy[:, 1], bins=bins, range=extent, weights=weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(count >= 3, -np.log(total / count), np.nan) + float(energy.min())
    low, high = np.nanquantile(value, [0.02, 0.98])
    centres = (xe[:-1] + xe[1:]) / 2, (ye[:-1] + ye[1:]) / 2
    levels = np.linspace(low, high if high > low else low + 1, 14)
    drawn = ax.contourf(*centres, value.T, levels=levels, cmap="viridis", extend="both")
    figure.colorbar(drawn, ax=ax, label="energy (nats); low = more likely", format="%.1f")
    _dots(ax, plane(draws[:shown]), s=5, color="white", edgecolors="black", linewidths=0.3, label="tilted draws")
    ax.legend(fontsize=8, loc="upper right")
    _finish(ax, plane, title)
    ax.set_xlim(*extent[0])
    ax.set_ylim(*extent[1])
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.002, 0.998])
    return float(low), float(high)


def plot_overlay(plane: Plane, reference: Tensor, prior: Tensor, tilted: Tensor, title: str) -> Figure:
    """Prior and tilted draws, each laid over the reference's latents.

    Arguments:
        plane: where to look.
        reference: posterior draws of the reference, (N, d).
        prior: prior draws, (n, d).
        tilted: tilted draws, (n, d).
        title: the finding.

    Example:
        >>> import torch
        >>> z = torch.randn(9, 2)
        >>> len(plot_overlay(Plane(z), z, z, z, "alike").axes)
        2
    """
    figure, axes = _axes(8.4, 4.2, columns=2)
    for ax, points, colour, name in zip(axes, (prior, tilted), ("#D55E00", AFTER), ("prior", "tilted"), strict=True):
        _dots(ax, plane(reference), s=8, color="#BBBBBB", linewidths=0, label="reference codes")
        _dots(ax, plane(points), s=5, alpha=0.5, color=colour, linewidths=0, label=f"{name} draws")
        ax.legend(fontsize=8, loc="upper right", markerscale=2)
        ax.sharex(axes[0])
        ax.sharey(axes[0])
        _finish(ax, plane, f"{name} draws on the reference")
    figure.suptitle(title, fontsize=10)
    return figure


def plot_paths(plane: Plane, trace: Tensor, title: str) -> Figure:
    """Paths of Langevin chains in a plane, from open circles to filled ones.

    Arguments:
        plane: where to look.
        trace: positions (T, chains, d).
        title: the finding.

    Example:
        >>> import torch
        >>> z = torch.randn(5, 3, 2)
        >>> len(plot_paths(Plane(z.flatten(0, 1)), z, "three walks").axes)
        1
    """
    figure, (ax,) = _axes(5.2, 4.4)
    for c in range(trace.shape[1]):
        path = plane(trace[:, c])
        colour = COLOURS[c % len(COLOURS)]
        ax.plot(*path.T, lw=0.7, alpha=0.7, color=colour)
        ax.plot(*path[0], "o", ms=5, mfc="white", color=colour)
        ax.plot(*path[-1], "o", ms=5, color=colour)
    _finish(ax, plane, title)
    return figure


def plot_shares(
    before: Sequence[float], after: Sequence[float], target: Sequence[float], names: Sequence[str], title: str
) -> Figure:
    """Class shares of draws before and after the tilt, beside the target.

    Example:
        >>> plot_shares([0.9, 0.1], [0.5, 0.5], [0.5, 0.5], ["a", "b"], "balanced").axes[0].get_ylabel()
        'share of draws (%)'
    """
    figure, (ax,) = _axes(6, 3.6)
    x, width = np.arange(len(names)), 0.38
    for offset, shares, colour, label in ((-0.5, before, BEFORE, "untilted"), (0.5, after, AFTER, "tilted")):
        bars = ax.bar(x + offset * width, 100 * np.array(shares), width, color=colour, label=label)
        ax.bar_label(bars, fmt="%.0f", fontsize=8, label_type="center", color="white")
    lows, highs = x - width * 1.1, x + width * 1.1
    ax.hlines(100 * np.array(target), lows, highs, colors="black", linestyles="--", lw=1.2, label="target")
    ax.set_xticks(x, names)
    ax.set_xlabel("class, as the classifier sees it")
    ax.set_ylabel("share of draws (%)")
    ax.set_ylim(0, 118 * max(*before, *after, *target))
    ax.legend(fontsize=8, ncols=3, loc="upper right")
    ax.set_title(title, fontsize=10)
    return figure


def plot_study(
    table: pd.DataFrame, x: str, panels: Mapping[str, str], *, before: Mapping[str, Any], title: str, x_label: str
) -> Figure:
    """Curves of several measures over one setting: a dot each repeat, a line through the means, bars of one sd.

    Arguments:
        table: one row a value of `x` and repeat.
        x: column of the setting; drawn evenly spaced, since reference sizes and strengths are few and uneven.
        panels: column and label of each measure.
        before: the same measures without a tilt, drawn as a dashed line where known.
        title: the finding.
        x_label: name of the setting.

    Example:
        >>> table = pd.DataFrame({"size": [5, 5, 10], "tv": [0.2, 0.1, 0.05]})
        >>> figure = plot_study(table, "size", {"tv": "TV"}, before={"tv": 0.3}, title="more is better", x_label="size")
        >>> figure.axes[0].get_ylabel()
        'TV'
    """
    figure, axes = _axes(2.6 * len(panels) + 0.4, 3.0, columns=len(panels))
    values = sorted(table[x].unique())
    place = table[x].map({v: i for i, v in enumerate(values)})
    for ax, (column, label) in zip(axes, panels.items(), strict=True):
        by = table.astype({column: float}).groupby(x)[column]
        ax.plot(place, table[column], "o", ms=3, alpha=0.35, color=AFTER, mew=0)
        ax.errorbar(range(len(values)), by.mean(), by.std().fillna(0), color=AFTER, marker="o", ms=4, capsize=2, lw=1.4)
        if column in before:
            ax.axhline(before[column], color="black", ls="--", lw=1)
            # On the side of the line where the curve does not start.
            side = 3 if by.mean().iloc[0] <= before[column] else -9
            ax.annotate("untilted", (0, before[column]), xytext=(0, side), textcoords="offset points", fontsize=7)
        ax.set_xticks(range(len(values)), [f"{v:g}" for v in values], fontsize=8)
        ax.set_ylim(0, 1.15 * max(float(table[column].max()), before.get(column, 0.0)))
        ax.set_xlabel(x_label, fontsize=8)
        ax.set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _dots(ax: Axes, xy: np.ndarray, **style: Any) -> None:
    ax.scatter(xy[:, 0], xy[:, 1], **style)


def _finish(ax: Axes, plane: Plane, title: str) -> None:
    ax.set_xlabel(plane.labels[0])
    ax.set_ylabel(plane.labels[1])
    ax.set_title(title, fontsize=10)
