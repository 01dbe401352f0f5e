"""The energy of a data-space tilt: an ensemble of small strided convnets."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, check_int
from latentebm.models.energies import EnsembleEnergy, initial

__all__ = ["DataEnergy"]


class DataEnergy(EnsembleEnergy):
    """Mean energy of M independent convnets of the data.

    Each convolution halves the image. One that is too small to halve three times gets fewer convolutions, and data
    that are no images none: the perceptron on top, of `hidden` units, is then all there is. The last layer starts at
    zero, i.e. at no tilt.

    Example:
        >>> energy = DataEnergy((1, 28, 28), members=3)
        >>> energy(torch.rand(2, 1, 28, 28)).tolist(), energy.members(torch.rand(2, 1, 28, 28)).shape
        ([0.0, 0.0], torch.Size([3, 2]))
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        *,
        channels: tuple[int, ...] = (8, 16, 32),
        hidden: int = 64,
        members: int = 1,
        limit: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        config = {"data_shape": list(data_shape), "channels": list(channels), "hidden": check_int("hidden", hidden)}
        super().__init__({**config, "members": members, "limit": limit})
        self.data_shape = tuple(check_int("data_shape", s) for s in data_shape)
        self.convolutions, flat = _convolutions(self.data_shape, [check_int("channels", c) for c in channels])
        shapes = [*((o, i, 3, 3) for i, o in self.convolutions), (hidden, flat), (1, hidden)]
        bounds = [*(math.sqrt(3 / math.prod(s[1:])) for s in shapes[:-1]), 0.0]
        self.weights = nn.ParameterList(
            initial((members, *s), bound, generator) for s, bound in zip(shapes, bounds, strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, s[0])) for s in shapes)

    def members(self, x: Tensor) -> Tensor:
        """Energies (M, N) of every member, for data (N, *data_shape) or a batch per member (M, N, *data_shape)."""
        shared = x.ndim == len(self.data_shape) + 1
        check_event("x", x if shared else x.flatten(0, 1), self.data_shape)
        return torch.stack([self._member(m, x if shared else x[m]) for m in range(self.n_members)])

    def _member(self, m: int, x: Tensor) -> Tensor:
        h = 2 * x - 1
        for weight, bias in zip(self.weights[:-2], self.biases[:-2], strict=True):
            h = F.silu(F.conv2d(h, weight[m], bias[m], stride=2, padding=1))
        h = F.silu(F.linear(h.flatten(1), self.weights[-2][m], self.biases[-2][m]))
        return self.bounded(F.linear(h, self.weights[-1][m], self.biases[-1][m]).squeeze(1))


def _convolutions(data_shape: tuple[int, ...], channels: list[int]) -> tuple[list[tuple[int, int]], int]:
    """Channels in and out of each convolution that the image has room for, and the numbers that are left of it."""
    pairs: list[tuple[int, int]] = []
    if len(data_shape) != 3:
        return pairs, math.prod(data_shape)
    now, height, width = data_shape
    for c in channels:
        if min(height, width) < 4:
            break
        pairs.append((now, c))
        now, height, width = c, (height + 1) // 2, (width + 1) // 2
    return pairs, now * height * width
