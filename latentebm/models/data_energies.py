"""The energy of a data-space tilt: an ensemble of small strided convnets."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, check_int, check_number

__all__ = ["DataEnergy"]


class DataEnergy(nn.Module):
    r"""Mean energy of M independent convnets of the data.

    .. math:: E(x) = \frac1M \sum_m L \tanh\big(e_m(x) / L\big)

    Each convolution halves the image. One that is too small to halve three times gets fewer convolutions, and data
    that are no images none: the perceptron on top is then all there is.

    Arguments:
        data_shape: (C, H, W), or any other shape of one item.
        channels: of the convolutions.
        hidden: units of the layer on top.
        members: ensemble size M.
        limit: bound L of each member, in nats; None for none.
        generator: source of the initial weights; the last layer starts at zero, i.e. at no tilt.

    Raises:
        ValueError: a size below one, or data of another shape.

    References:
        VAEBM: A Symbiosis between Variational Autoencoders and Energy-based Models (Xiao et al., 2021),
        https://arxiv.org/abs/2010.00654

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
        super().__init__()
        self.data_shape = tuple(check_int("data_shape", s) for s in data_shape)
        self.n_members = check_int("members", members)
        self.limit = None if limit is None else check_number("limit", limit, low=0, open_low=True)
        self.config: dict[str, Any] = {
            "data_shape": list(self.data_shape),
            "channels": [check_int("channels", c) for c in channels],
            "hidden": check_int("hidden", hidden),
            "members": members,
            "limit": limit,
        }
        self.convolutions, flat = _convolutions(self.data_shape, channels)
        shapes = [*((o, i, 3, 3) for i, o in self.convolutions), (hidden, flat), (1, hidden)]
        self.weights = nn.ParameterList(_uniform(members, s, generator, last=s[0] == 1) for s in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, s[0])) for s in shapes)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DataEnergy:
        """An energy of the same shape as one that had this `config`, its weights not yet loaded."""
        return cls(**{**config, "data_shape": tuple(config["data_shape"]), "channels": tuple(config["channels"])})

    def forward(self, x: Tensor) -> Tensor:
        """Energies (N,) of data (N, *data_shape), in nats.

        Raises:
            ValueError: another data shape.
        """
        return self.members(x).mean(0)

    def members(self, x: Tensor) -> Tensor:
        """Energies (M, N) of every member, for data (N, *data_shape) or a batch a member (M, N, *data_shape).

        Raises:
            ValueError: another data shape.
        """
        shared = x.ndim == len(self.data_shape) + 1
        check_event("x", x if shared else x.flatten(0, 1), self.data_shape)
        return torch.stack([self._member(m, x if shared else x[m]) for m in range(self.n_members)])

    def _member(self, m: int, x: Tensor) -> Tensor:
        h = 2 * x - 1
        for weight, bias in zip(self.weights[:-2], self.biases[:-2], strict=True):
            h = F.silu(F.conv2d(h, weight[m], bias[m], stride=2, padding=1))
        h = F.silu(F.linear(h.flatten(1), self.weights[-2][m], self.biases[-2][m]))
        energy = F.linear(h, self.weights[-1][m], self.biases[-1][m]).squeeze(1)
        return energy if self.limit is None else self.limit * torch.tanh(energy / self.limit)


def _convolutions(data_shape: tuple[int, ...], channels: tuple[int, ...]) -> tuple[list[tuple[int, int]], int]:
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


def _uniform(members: int, shape: tuple[int, ...], generator: torch.Generator | None, *, last: bool) -> nn.Parameter:
    bound = 0.0 if last else math.sqrt(3 / math.prod(shape[1:]))
    return nn.Parameter((2 * torch.rand((members, *shape), generator=generator) - 1) * bound)
