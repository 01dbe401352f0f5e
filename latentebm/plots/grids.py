"""Grids of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from latentebm.plots.lettering import fonts
from latentebm.plots.style import AFTER, Place, many, new_figure

__all__ = ["plot_clusters", "plot_image_grid"]


@fonts()
def plot_image_grid(images: Tensor, title: str = "", columns: int = 16, *, ax: Place = None) -> Figure:
    """Grid of images (N, C, H, W) in [0, 1], row by row.

    Example:
        >>> import torch
        >>> plot_image_grid(torch.rand(6, 1, 4, 4), columns=3).axes[0].images[0].get_array().shape
        (11, 16, 3)
    """
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    height = 6.4 * rows * images.shape[2] / (columns * images.shape[3])
    figure, (place,) = new_figure(6.4, height + 0.35, title, ax=ax)
    grid = make_grid(images.cpu(), nrow=columns, padding=1, pad_value=0.35)
    place.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    place.set_axis_off()
    return figure


@fonts()
def plot_clusters(
    images: Tensor, reference: Sequence[float], draws: Sequence[float], title: str = "", *, ax: Place = None
) -> Figure:
    """An image (K, C, H, W) of each cluster above its share in the reference and among the draws.

    Example:
        >>> import torch
        >>> [ax.get_xlabel() for ax in plot_clusters(torch.rand(2, 1, 4, 4), [0.7, 0.3], [0.75, 0.1]).axes]
        ['1: 70 → 75 %', '2: 30 → 10 %']
    """
    rows, columns = many(len(images), most=5)
    figure, axes = new_figure(6.4, 0.3 + 1.4 * rows, title, rows, columns, ax=ax)
    for unused in axes[len(images) :]:
        unused.set_axis_off()
    for k, (panel, image) in enumerate(zip(axes, images.cpu(), strict=False)):
        panel.imshow(make_grid(image, padding=0).permute(1, 2, 0).numpy(), interpolation="nearest")
        panel.set(xticks=[], yticks=[])
        lacking = draws[k] < reference[k] / 2
        words = f"{k + 1}: {100 * reference[k]:.0f} → {100 * draws[k]:.0f} %"
        style: dict[str, Any] = (
            {"color": "#A83C00", "weight": "bold"} if lacking else {"color": AFTER, "weight": "normal"}
        )
        panel.set_xlabel(words, fontsize=9, **style)
    return figure
