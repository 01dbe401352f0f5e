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
from latentebm.plots.style import AFTER, COLOURS, MARKERS, dots, new_figure, tidy_legend, verbatim

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


def label_plane(ax: Axes, plane: Plane, title: str) -> None:
    """Name the axes after the plane's and set the title."""
    ax.set(xlabel=plane.labels[0], ylabel=plane.labels[1])
    ax.set_title(title, fontsize=10)


def plot_latents(
    plane: Plane, latent: Tensor, labels: Tensor | None, classes: Sequence[int], names: Sequence[str], title: str
) -> Figure:
    """Scatter of latents (N, d) in a plane, coloured by the class (N,) of each where known.

    Example:
        >>> import torch
        >>> z = torch.randn(9, 2)
        >>> figure = plot_latents(Plane(z), z, torch.arange(9) % 2, [0, 1], ["a", "b"], "two classes")
        >>> [len(dots.get_offsets()) for dots in figure.axes[0].collections]
        [5, 4]
    """
    figure, (ax,) = new_figure(5.2, 4.4)
    if labels is None:
        dots(ax, plane(latent), s=5, alpha=0.5, color=AFTER, linewidths=0)
    else:
        _by_class(ax, plane, latent, labels, classes, names)
        tidy_legend(ax, title="class", ncols=math.ceil(len(names) / 10))
    label_plane(ax, plane, title)
    return figure


def plot_encoders(
    latents: Mapping[str, Tensor], labels: Tensor, classes: Sequence[int], names: Sequence[str], title: str
) -> Figure:
    """Codes (N, d) of the same images under several encoders, each in its own plane, coloured by class (N,).

    Example:
        >>> import torch
        >>> codes = {"old": torch.randn(9, 2), "new": torch.randn(9, 2)}
        >>> [ax.get_title() for ax in plot_encoders(codes, torch.arange(9) % 2, [0, 1], ["a", "b"], "moved").axes]
        ['old', 'new']
    """
    figure, axes = new_figure(0.4 + 3.1 * len(latents), 3.5, title, columns=len(latents))
    for ax, (name, latent) in zip(axes, latents.items(), strict=True):
        plane = Plane(latent)
        _by_class(ax, plane, latent, labels, classes, names)
        label_plane(ax, plane, name)
    tidy_legend(axes[-1], title="class", loc="upper left", bbox_to_anchor=(1, 1), ncols=math.ceil(len(names) / 10))
    return figure


def plot_overlay(plane: Plane, reference: Tensor, prior: Tensor, tilted: Tensor, title: str) -> Figure:
    """Prior and tilted draws (n, d), each laid over posterior draws of the reference (N, d)."""
    figure, axes = new_figure(8.4, 4.2, title, columns=2)
    for ax, points, colour, name in zip(axes, (prior, tilted), ("#D55E00", AFTER), ("prior", "tilted"), strict=True):
        dots(ax, plane(reference), s=8, color="#BBBBBB", linewidths=0, label="reference codes")
        dots(ax, plane(points), s=5, alpha=0.5, color=colour, linewidths=0, label=f"{name} draws")
        tidy_legend(ax, loc="upper right")
        ax.sharex(axes[0])
        ax.sharey(axes[0])
        label_plane(ax, plane, f"{name} draws on the reference")
    return figure


def _by_class(
    ax: Axes, plane: Plane, latent: Tensor, labels: Tensor, classes: Sequence[int], names: Sequence[str]
) -> None:
    points = plane(latent)
    for i, (k, name) in enumerate(zip(classes, verbatim(names), strict=True)):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
        shown = points[(labels == k).cpu().numpy()]
        dots(ax, shown, s=7, alpha=0.6, linewidths=0, label=name, color=colour, marker=marker)
