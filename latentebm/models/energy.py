"""The energy network: an ensemble of small perceptrons stacked in one module."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, check_int

__all__ = ["EnergyNet"]


class EnergyNet(nn.Module):
    r"""Mean energy of M independent perceptrons, evaluated together by batched products.

    .. math:: E(z) = \frac1M \sum_m w_m^\top h_m(z) + b_m

    The mean of energies is the logarithm of a geometric mean of tilts: it keeps what the members agree on and lets
    go of what only one saw in its part of a small reference set.

    Arguments:
        dim: length of the input.
        hidden: widths of the hidden layers.
        members: ensemble size M.
        generator: source of the initial weights; the last layer starts at zero, i.e. at no tilt.

    Raises:
        ValueError: a size below one.

    References:
        Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles (Lakshminarayanan et al., 2017),
        https://arxiv.org/abs/1612.01474

    Example:
        >>> energy = EnergyNet(2, members=3)
        >>> energy(torch.randn(5, 2)).tolist(), energy.members(torch.randn(5, 2)).shape
        ([0.0, 0.0, 0.0, 0.0, 0.0], torch.Size([3, 5]))
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: tuple[int, ...] = (128, 64),
        members: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = [check_int("dim", dim), *(check_int("hidden", h) for h in hidden), 1]
        self.config: dict[str, Any] = {"dim": dim, "hidden": list(hidden), "members": check_int("members", members)}
        self.n_members = members
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, o in itertools.pairwise(sizes):
            bound = 0.0 if o == 1 else 1 / math.sqrt(i)
            self.weights.append(_uniform((members, i, o), bound, generator))
            self.biases.append(_uniform((members, 1, o), bound, generator))

    def forward(self, z: Tensor) -> Tensor:
        """Energies (N,) of points (N, dim), in nats.

        Raises:
            ValueError: another point length.
        """
        return self.members(z).mean(0)

    def members(self, z: Tensor) -> Tensor:
        """Energies (M, N) of every member, for points (N, dim) or a batch of points a member (M, N, dim).

        Raises:
            ValueError: another point length.
        """
        check_event("z", z.flatten(0, -2), (self.config["dim"],))
        h = z.expand(self.n_members, *z.shape[-2:])
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            h = h if k == last else F.silu(h)
        return h.squeeze(-1)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator | None) -> nn.Parameter:
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)
