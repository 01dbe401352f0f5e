"""The energy network: an ensemble of small perceptrons stacked in one module."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, check_int, check_number
from latentebm.sampling.compiled.perceptrons import CompiledPerceptrons, compiled_perceptrons

__all__ = ["EnergyNet"]


class EnergyNet(nn.Module):
    r"""Mean energy of M independent perceptrons, evaluated together by batched products.

    .. math:: E(z) = \frac1M \sum_m \big(w_m^\top h_m(z) + b_m\big)

    The mean of energies is the logarithm of a geometric mean of tilts: it keeps what the members agree on and lets
    go of what only one saw in its part of a small reference set.

    Arguments:
        dim: length of the input.
        hidden: widths of the hidden layers.
        members: ensemble size M.
        limit: bound L of each perceptron's output, in nats, by :math:`L\tanh(\cdot/L)`; None for none. Far from all
            codes a free perceptron goes on falling, and a handful of remote draws would carry the weights.
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
        limit: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = [check_int("dim", dim), *(check_int("hidden", h) for h in hidden), 1]
        self.n_members = check_int("members", members)
        self.config: dict[str, Any] = {"dim": dim, "hidden": list(hidden), "members": members}
        self.config["limit"] = limit
        self.limit = None if limit is None else check_number("limit", limit, low=0, open_low=True)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, o in itertools.pairwise(sizes):
            bound = 0.0 if o == 1 else 1 / math.sqrt(i)
            self.weights.append(_uniform((members, i, o), bound, generator))
            self.biases.append(_uniform((members, 1, o), bound, generator))

    def start_from(self, other: EnergyNet) -> EnergyNet:
        """Give every member the perceptron of an energy of one member and the same widths.

        Raises:
            RuntimeError: widths differ (from torch).
        """
        with torch.no_grad():
            for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
                mine.copy_(theirs.expand_as(mine))
        return self

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EnergyNet:
        """An energy of the same shape as one that had this `config`, its weights not yet loaded."""
        return cls(config["dim"], hidden=tuple(config["hidden"]), members=config["members"], limit=config["limit"])

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if cls.forward is not EnergyNet.forward or cls.members is not EnergyNet.members:
            # The closed forms below are of the energy below; another energy has its own, or is differentiated.
            for name in ("value_and_grad", "compiled"):
                if getattr(cls, name) is getattr(EnergyNet, name):
                    setattr(cls, name, None)

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
        free = self._layers(z)[-1].squeeze(-1)
        return free if self.limit is None else self.limit * torch.tanh(free / self.limit)

    @torch.no_grad()
    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Energies (N,) of points (N, dim) and their gradients (N, dim) in closed form, without a graph.

        .. math:: \nabla_{a_{k-1}} E_m = W_k \big(\mathrm{silu}'(h_k) \odot \nabla_{a_k} E_m\big)

        Raises:
            ValueError: another point length.
        """
        check_event("z", z, (self.config["dim"],))
        *hidden, free = self._layers(z)
        refined = free if self.limit is None else self.limit * torch.tanh(free / self.limit)
        slope = torch.ones_like(free) if self.limit is None else 1 - (refined / self.limit).square()
        grad = (slope / self.n_members) @ self.weights[-1].mT
        for h, weight in zip(reversed(hidden), reversed(self.weights[:-1]), strict=True):
            grad = torch.bmm(torch.ops.aten.silu_backward(grad, h), weight.mT)
        return refined.squeeze(-1).mean(0), grad.sum(0)

    def compiled(self) -> CompiledPerceptrons | None:
        """The same energy as a program of its own, or none where it is not float32 on the processor."""
        return compiled_perceptrons(list(self.weights), list(self.biases), self.limit)

    def _layers(self, z: Tensor) -> list[Tensor]:
        """Every layer's output (M, N, width) before its activation."""
        layers = [torch.baddbmm(self.biases[0], z.expand(self.n_members, *z.shape[-2:]), self.weights[0])]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            layers.append(torch.baddbmm(bias, F.silu(layers[-1]), weight))
        return layers


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator | None) -> nn.Parameter:
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)
