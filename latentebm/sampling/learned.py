"""Draws of a learned sampler: one pass of a network that was trained with the energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from latentebm.checks import check_finite, check_int, check_rng, fail
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.target import Target, tilt_energy

__all__ = ["AmortizedSampler", "PointSource"]


class PointSource(Protocol):
    """Anything that draws points of a base space."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, D) points."""
        ...


@dataclass(frozen=True)
class AmortizedSampler:
    r"""A learned sampler: the network's points stand for draws of the tilted distribution.

    .. math:: u = g(z) + \sigma \epsilon, \quad z \sim N(0, I)

    The draws are as good as the network's fit; nothing corrects them. Compare with an exact sampler by
    :func:`latentebm.sampling.agreement`.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230
    """

    source: PointSource  # a fitted network that draws base-space points

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points by one pass of the network, trained for this target; the diagnostics hold ``mean_potential``.

        Raises:
            ValueError: the network's points are not of the tilt's shape, or an energy is not finite.
        """
        u = self.source.sample(check_int("n", n), generator=check_rng(generator))
        want = (n, *tilt.sample_base(1, generator=stream(0)).shape[1:])
        if tuple(u.shape) != want:
            raise fail("source", f"points of shape {want}", tuple(u.shape), "pass one made for this tilt")
        energy = check_finite("energy", tilt_energy(tilt, u))
        diagnostics = {"sampler": "amortized", "mean_potential": float((energy - tilt.log_base(u)).mean())}
        return gather_draws(tilt, u, diagnostics, log_weight=-energy)
