"""Grids of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from latentebm.plots.style import AFTER, new_figure

__all__ = ["plot_clusters", "plot_image_grid"]


def plot_image_grid(images: Tensor, title: str, columns: int = 16) -> Figure:
    """Grid of images (N, C, H, W) in [0, 1], row by row."""
    rows = math.ceil(len(images) / columns)
    figure, (ax,) = new_figure(7, 7 * rows / columns + 0.35)
    grid = make_grid(images.cpu(), nrow=columns, padding=1, pad_value=0.35)
    ax.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return figure


def plot_clusters(images: Tensor, reference: Sequence[float], draws: Sequence[float], title: str) -> Figure:
    """An image (K, C, H, W) of each cluster above its share in the reference and among the draws.

    Example:
        >>> import torch
        >>> [ax.get_xlabel() for ax in plot_clusters(torch.rand(2, 1, 4, 4), [0.7, 0.3], [0.75, 0.1], "").axes]
        ['1: 70 → 75 %', '2: 30 → 10 %']
    """
    figure, axes = new_figure(7, 1.4, title, columns=len(images))
    for k, (ax, image) in enumerate(zip(axes, images.cpu(), strict=True)):
        ax.imshow(make_grid(image, padding=0).permute(1, 2, 0).numpy(), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        lacking = draws[k] < reference[k] / 2
        words = f"{k + 1}: {100 * reference[k]:.0f} → {100 * draws[k]:.0f} %"
        ax.set_xlabel(words, fontsize=7, color="#A83C00" if lacking else AFTER, weight="bold" if lacking else "normal")
    return figure
