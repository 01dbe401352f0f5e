"""Scatters of latents: by class, of several encoders, and of draws over the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from latentebm.plots.plane import Plane, label_plane
from latentebm.plots.style import AFTER, class_style, dots, new_figure, tidy_legend

__all__ = ["plot_encoders", "plot_latents", "plot_overlay"]


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
    figure, axes = new_figure(0.4 + 3.1 * len(latents), 3.5, columns=len(latents))
    for ax, (name, latent) in zip(axes, latents.items(), strict=True):
        plane = Plane(latent)
        _by_class(ax, plane, latent, labels, classes, names)
        label_plane(ax, plane, name)
    tidy_legend(axes[-1], title="class", loc="upper left", bbox_to_anchor=(1, 1), ncols=math.ceil(len(names) / 10))
    figure.suptitle(title, fontsize=10)
    return figure


def plot_overlay(plane: Plane, reference: Tensor, prior: Tensor, tilted: Tensor, title: str) -> Figure:
    """Prior and tilted draws (n, d), each laid over posterior draws of the reference (N, d).

    Example:
        >>> import torch
        >>> z = torch.randn(9, 2)
        >>> [ax.get_title() for ax in plot_overlay(Plane(z), z, z, z, "alike").axes]
        ['prior draws on the reference', 'tilted draws on the reference']
    """
    figure, axes = new_figure(8.4, 4.2, columns=2)
    for ax, points, colour, name in zip(axes, (prior, tilted), ("#D55E00", AFTER), ("prior", "tilted"), strict=True):
        dots(ax, plane(reference), s=8, color="#BBBBBB", linewidths=0, label="reference codes")
        dots(ax, plane(points), s=5, alpha=0.5, color=colour, linewidths=0, label=f"{name} draws")
        tidy_legend(ax, loc="upper right")
        ax.sharex(axes[0])
        ax.sharey(axes[0])
        label_plane(ax, plane, f"{name} draws on the reference")
    figure.suptitle(title, fontsize=10)
    return figure


def _by_class(
    ax: Axes, plane: Plane, latent: Tensor, labels: Tensor, classes: Sequence[int], names: Sequence[str]
) -> None:
    points = plane(latent)
    for k, name in zip(classes, names, strict=True):
        rows = (labels == k).cpu().numpy()
        dots(ax, points[rows], s=7, alpha=0.6, linewidths=0, label=name, **class_style(classes.index(k)))
