"""Grids of images."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from latentebm.plots.style import new_figure

__all__ = ["plot_image_grid"]


def plot_image_grid(images: Tensor, title: str, columns: int = 16) -> Figure:
    """Grid of images (N, C, H, W) in [0, 1], row by row."""
    rows = math.ceil(len(images) / columns)
    figure, (ax,) = new_figure(7, 7 * rows / columns + 0.35)
    grid = make_grid(images.cpu(), nrow=columns, padding=1, pad_value=0.35)
    ax.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return figure
