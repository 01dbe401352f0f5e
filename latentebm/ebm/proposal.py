"""Draws of a potential's distribution from a learned sampler, corrected by importance weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal

from latentebm.checks import check_event, check_int, check_number, fail
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives.sampler_entropy import sampler_score
from latentebm.rng import normal

__all__ = ["Proposal"]


@dataclass(frozen=True)
class Proposal:
    r"""A learned sampler and a small share of a wide Gaussian, redrawn by their weights.

    .. math:: w_i \propto \frac{e^{-U(x_i)}}{(1 - \alpha)\, q(x_i) + \alpha\, r(x_i)}, \qquad
              r = N(\mathrm{loc}, \mathrm{scale}^2)

    A sampler misses modes that none of its points is near: there a fitted energy may fall without bound, unseen by any
    draw. The wide share α, of centre `loc` and standard deviations `scale` (d,), finds such holes, and bounds every
    weight; it has at least one draw.
    The sampler's density comes from :func:`~latentebm.objectives.sampler_entropy.sampler_score`, at wide points with
    the code of the nearest of its own; a sampler without noise has none, and its points are returned unweighted.

    References:
        Weighted average importance sampling and defensive mixture distributions (Hesterberg, 1995),
        https://doi.org/10.1080/00401706.1995.10484303

    Example:
        >>> g, source = torch.Generator().manual_seed(0), SamplerNet(2, 2, straight=1.0)
        >>> draws = Proposal(source, torch.zeros(2), torch.ones(2)).draw(lambda x: 2 * x.square().sum(1), 9999, g)
        >>> abs(draws.std().item() - 0.5) < 0.02
        True
    """

    source: SamplerNet
    loc: Tensor
    scale: Tensor
    share: float = 0.1

    def __post_init__(self) -> None:
        check_number("share", self.share, low=0, high=0.99, open_low=True)

    @torch.no_grad()
    def draw(self, potential: Callable[[Tensor], Tensor], n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) points of the density e^{−U}; rows take turns among members, each redrawn among its own."""
        members, source, was_training = self.source.members, self.source, self.source.training
        if check_int("n", n) < 2 * members or n % members:
            want = f"a multiple of {members} members, at least {2 * members}"
            raise fail("n", want, n, f"pass n={2 * members}")
        source.eval()
        wide = members * max(1, round(self.share * n / members)) if source.noise else 0
        z = normal((n - wide, source.latent_dim), generator, self.loc)
        noise = normal((n, source.dim), generator, self.loc)
        clean = check_event("source", source(z), tuple(self.loc.shape))
        x = clean + source.noise * noise[wide:]
        if wide:
            far = self.loc + self.scale * noise[:wide]
            codes = torch.cat([z, self._nearest(far, clean, z)])
            x = torch.cat([x, far])
            log_weight = -potential(x) - self._log_density(x, codes, wide / n, generator)
            x = self._redrawn(x, log_weight, generator)
        source.train(was_training)
        return x

    def _log_density(self, x: Tensor, codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
        own = sampler_score(self.source, x, codes, noise=self.source.noise, generator=generator).log_density
        # Unvalidated: a diverged sampler makes NaN points, which its own loss reports.
        wide = Normal(self.loc, self.scale, validate_args=False).log_prob(x).sum(1)
        return torch.logaddexp(own + math.log1p(-share), wide + math.log(share))

    def _nearest(self, far: Tensor, clean: Tensor, z: Tensor) -> Tensor:
        return self._taken(z, torch.cdist(self._by_member(far), self._by_member(clean)).argmin(2))

    def _redrawn(self, x: Tensor, log_weight: Tensor, generator: torch.Generator) -> Tensor:
        share = torch.softmax(self._by_member(log_weight), 1)
        # At most about √K copies in K: a single point must not dominate a step. NaN is left to the loss to report.
        share = share.nan_to_num(1.0).clamp(min=1e-12, max=share.shape[1] ** -0.5)
        rows = torch.multinomial(share.to(generator.device), share.shape[1], replacement=True, generator=generator)
        return self._taken(x, rows.to(x.device))

    def _taken(self, x: Tensor, rows: Tensor) -> Tensor:
        return self._by_member(x).take_along_dim(rows[..., None], 1).transpose(0, 1).flatten(0, 1)

    def _by_member(self, rows: Tensor) -> Tensor:
        """Rows that take turns, (M, K, …)."""
        return rows.unflatten(0, (-1, self.source.members)).transpose(0, 1)
