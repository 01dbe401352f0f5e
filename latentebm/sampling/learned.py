"""Draws of a learned sampler: one pass of a generator that was trained with the energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from latentebm.checks import check_finite, check_int, check_rng, fail
from latentebm.progress import Track, silent
from latentebm.sampling.draws import Draws, Target, gather_draws, tilt_energy

__all__ = ["AmortizedSampler", "PointSource"]


class PointSource(Protocol):
    """Anything that draws points of a base space."""

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, D) points."""
        ...


@dataclass(frozen=True)
class AmortizedSampler:
    r"""A learned sampler: the generator's points stand for draws of the tilted law.

    .. math:: u = g(z) + \sigma \epsilon, \quad z \sim N(0, I)

    The draws are as good as the generator's fit; nothing corrects them. Compare with an exact sampler by
    :func:`latentebm.sampling.agreement`.

    Arguments:
        source: a fitted generator of base-space points.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230

    Example:
        >>> class Normal:
        ...     def sample(self, n, *, generator):
        ...         return torch.randn(n, 2, generator=generator)
        >>> AmortizedSampler(Normal()).source.sample(3, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    source: PointSource

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points by one pass of the generator.

        Arguments:
            tilt: the target the generator was trained for; it decodes the points.
            n: draws.
            generator: source of the codes and of the noise.
            track: not shown: one pass has no progress.

        Returns:
            Draws whose diagnostics hold the sampler's name and the mean potential, in nats.

        Raises:
            ValueError: `n` is below 1, the generator's points are not of the tilt's shape, or the energies are not one
                finite number a point.
        """
        u = self.source.sample(check_int("n", n), generator=check_rng(generator))
        want = (n, *tilt.sample_base(1, generator=torch.Generator(generator.device).manual_seed(0)).shape[1:])
        if tuple(u.shape) != want:
            raise fail("generator", f"points of shape {want}", tuple(u.shape), "pass one made for this tilt")
        energy = check_finite("energy", tilt_energy(tilt, u))
        diagnostics = {"sampler": "amortized", "mean_potential": float((energy - tilt.log_base(u)).mean())}
        return gather_draws(tilt, u, -energy, diagnostics)
