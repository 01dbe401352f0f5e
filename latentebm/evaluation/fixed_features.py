"""Features of images that nobody trained: histograms of the directions in which the grey values change."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_int, fail
from latentebm.chunks import chunk_size, in_chunks

__all__ = ["fixed_features"]

DIRECTIONS = 8


def fixed_features(x: Tensor, *, cells: int = 4) -> Tensor:
    r"""Histograms of gradient directions over a grid of cells, each image's scaled to length 1.

    .. math:: h_{ck} = \sum_{p \in c} |\nabla x(p)|\, \max\big(0, 1 - |\angle \nabla x(p) - \alpha_k| / \alpha_1\big)

    with directions :math:`\alpha_k = 2 \pi k / 8`. Nothing is fitted, so that they favour no
    method and depend on no data or seed.

    Arguments:
        x: images (N, C, H, W) in [0, 1]; colours are averaged.
        cells: along each side.

    Returns:
        (N, 8 cells²).

    Raises:
        ValueError: images of another shape.

    References:
        Histograms of Oriented Gradients for Human Detection (Dalal and Triggs, 2005),
        https://doi.org/10.1109/CVPR.2005.177

    Example:
        >>> x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> fixed_features(x).shape, bool(torch.allclose(fixed_features(x), fixed_features(0.5 * x), atol=1e-5))
        (torch.Size([3, 128]), True)
    """
    check_int("cells", cells)
    if x.ndim != 4:
        raise fail("x", "images of shape (N, C, H, W)", tuple(x.shape), "add the missing axes")
    size = chunk_size(DIRECTIONS * x.shape[2] * x.shape[3], x.device)
    return in_chunks(lambda part: _histograms(part, cells), x, size)


@torch.no_grad()
def _histograms(x: Tensor, cells: int) -> Tensor:
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    down, right = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1], grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
    angle = torch.atan2(down, right) * (DIRECTIONS / (2 * math.pi))
    which = torch.arange(DIRECTIONS, device=x.device).view(1, -1, 1, 1)
    # Distance around the circle, in directions.
    apart = (angle - which + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2
    votes = torch.hypot(down, right) * (1 - apart.abs()).clamp_min(0)
    return F.normalize(F.adaptive_avg_pool2d(votes, cells).flatten(1), dim=1)
