"""The plane in which latents of any length are looked at, and scatters of them there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from latentebm.checks import fail
from latentebm.plots.lettering import fonts, verbatim
from latentebm.plots.style import AFTER, COLOURS, MARKERS, Place, dots, many, new_figure, tidy_legend

__all__ = ["Plane", "label_plane", "plot_encoders", "plot_latents", "plot_overlay"]


class Plane:
    """A plane to look at latents (N, d) in: their own for two dimensions, else their first two principal components."""

    def __init__(self, latent: Tensor) -> None:
        if len(latent) < 2:
            raise fail("latent", "at least 2 points", len(latent), "pass more")
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


def label_plane(ax: Axes, plane: Plane) -> None:
    """Name the axes after the plane's."""
    ax.set(xlabel=plane.labels[0], ylabel=plane.labels[1])


@fonts()
def plot_latents(
    plane: Plane,
    latent: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[int] = (),
    names: Sequence[str] = (),
    title: str = "",
    *,
    ax: Place = None,
) -> Figure:
    """Scatter of latents (N, d) in a plane, coloured by the class (N,) of each where known.

    Example:
        >>> import torch
        >>> z = torch.randn(9, 2)
        >>> figure = plot_latents(Plane(z), z, torch.arange(9) % 2, [0, 1], ["a", "b"], "two classes")
        >>> [len(dots.get_offsets()) for dots in figure.axes[0].collections]
        [5, 4]
    """
    figure, (place,) = new_figure(5.2, 4.4, title, ax=ax)
    if labels is None:
        dots(place, plane(latent), s=5, alpha=0.5, color=AFTER, linewidths=0)
    else:
        _by_class(place, plane, latent, labels, classes, names)
        _legend(place, len(names))
    label_plane(place, plane)
    return figure


@fonts()
def plot_encoders(
    latents: Mapping[str, Tensor],
    labels: Tensor,
    classes: Sequence[int],
    names: Sequence[str],
    title: str = "",
    *,
    ax: Place = None,
) -> Figure:
    """Codes (N, d) of the same images under several encoders, each in its own plane, coloured by class (N,).

    Example:
        >>> import torch
        >>> codes = {"old": torch.randn(9, 2), "new": torch.randn(9, 2)}
        >>> [ax.get_title() for ax in plot_encoders(codes, torch.arange(9) % 2, [0, 1], ["a", "b"], "moved").axes]
        ['old', 'new']
    """
    rows, columns = many(len(latents), most=2)
    figure, axes = new_figure(0.6 + 2.9 * columns, 0.3 + 2.8 * rows, title, rows, columns, ax=ax)
    for unused in axes[len(latents) :]:
        unused.set_axis_off()
    for panel, (name, latent) in zip(axes, latents.items(), strict=False):
        plane = Plane(latent)
        _by_class(panel, plane, latent, labels, classes, names)
        label_plane(panel, plane)
        panel.set_title(verbatim([name], longest=32)[0], fontsize=9)
    _legend(axes[columns - 1], len(names))
    return figure


@fonts()
def plot_overlay(
    plane: Plane, reference: Tensor, prior: Tensor, tilted: Tensor, title: str = "", *, ax: Place = None
) -> Figure:
    """Prior and tilted draws (n, d), each laid over posterior draws of the reference (N, d)."""
    figure, axes = new_figure(6.6, 3.7, title, columns=2, ax=ax)
    for panel, points, colour, name in zip(axes, (prior, tilted), ("#D55E00", AFTER), ("prior", "tilted"), strict=True):
        dots(panel, plane(reference), s=8, color="#BBBBBB", linewidths=0, label="reference")
        dots(panel, plane(points), s=5, alpha=0.5, color=colour, linewidths=0, label=f"{name} draws")
        tidy_legend(panel, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        if panel is not axes[0]:
            panel.sharex(axes[0])
            panel.sharey(axes[0])
        label_plane(panel, plane)
    return figure


def _legend(ax: Axes, classes: int) -> None:
    """Beside the points, of which it would hide some."""
    ncols = math.ceil(classes / 16)
    tidy_legend(ax, title="class", loc="upper left", bbox_to_anchor=(1, 1), ncols=ncols, frameon=False)


def _by_class(
    ax: Axes, plane: Plane, latent: Tensor, labels: Tensor, classes: Sequence[int], names: Sequence[str]
) -> None:
    points = plane(latent)
    for i, (k, name) in enumerate(zip(classes, verbatim(names), strict=True)):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
        shown = points[(labels == k).cpu().numpy()]
        dots(ax, shown, s=7, alpha=0.6, linewidths=0, label=name, color=colour, marker=marker)
