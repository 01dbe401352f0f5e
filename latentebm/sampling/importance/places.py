"""Places that particles have passed, and their resampling in order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentebm.rng import uniform

__all__ = ["Places", "ordered_systematic"]

HELD = 2**23  # numbers of places held for resampling, or one place per particle where that is more


class Places:
    """The places of each particle in groups as many as memory allows; of each group one, drawn by weight, is held."""

    def __init__(self, size: int, u: Tensor) -> None:
        self.size, self.seen = size, 0
        self.groups = min(size, max(1, HELD // u.numel()))
        self.u = u.new_empty((self.groups, *u.shape))
        self.energy = u.new_full((self.groups, len(u)), math.inf, dtype=torch.float64)
        self.log_sum = torch.full_like(self.energy, -math.inf)

    def take(self, u: Tensor, energy: Tensor, log_weight: Tensor, generator: torch.Generator) -> None:
        """Take a further place of each particle."""
        group, log_weight = self.seen * self.groups // self.size, log_weight.to(self.log_sum)
        first = group != (self.seen - 1) * self.groups // self.size
        self.seen += 1
        self.log_sum[group] = torch.logaddexp(self.log_sum[group], log_weight)
        taken = uniform((len(u),), generator, log_weight).log() < log_weight - self.log_sum[group]
        taken = torch.ones_like(taken) if first else taken
        self.u[group, taken], self.energy[group, taken] = u[taken], energy[taken].double()

    def log_mean(self) -> Tensor:
        """Log of each particle's mean weight over its places, (N,)."""
        return self.log_sum.logsumexp(0) - math.log(self.size)

    def resampled(self, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The particles that went on (N,), and the places (N, D) and energies (N,) at which they did."""
        n = self.u.shape[1]
        rows = ordered_systematic(self.log_sum.flatten(), self.u.flatten(0, 1), n, generator=generator)
        return rows % n, self.u.flatten(0, 1)[rows], self.energy.flatten()[rows]


def ordered_systematic(log_weight: Tensor, u: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Rows (n,) drawn systematically by log-weights (K,), points (K, D) in order of their first principal component.

    Example:
        >>> u = torch.tensor([[0.0], [2.0], [1.0], [3.0]])
        >>> rows = ordered_systematic(torch.tensor([0.0, 0.0, -torch.inf, 0.0]), u, 3, generator=torch.Generator())
        >>> rows.sort().values.tolist()
        [0, 1, 3]
    """
    order = _first_component(u, generator).argsort()
    cumulated = log_weight.double().to(u.device).softmax(0)[order].cumsum(0)
    grid = (torch.arange(n, device=u.device, dtype=torch.float64) + uniform((1,), generator, cumulated)) / n
    return order[torch.searchsorted(cumulated, grid * cumulated[-1], right=True).clamp_(max=len(u) - 1)]


def _first_component(u: Tensor, generator: torch.Generator) -> Tensor:
    """Scores (N,) of points along about their direction of most variance, by a few power iterations."""
    centred = u.flatten(1).double()
    centred = centred - centred.mean(0)
    direction = uniform((centred.shape[1],), generator, centred) - 0.5
    for _ in range(8):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
    return centred @ direction
