"""Tilts whose base points hold a model's codes, drawn from its prior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_event
from latentebm.models.base.abstract_tilt import Tilt, log_normal
from latentebm.models.base.mixture_prior import learned_prior

__all__ = ["CodeTilt"]


class CodeTilt(Tilt):
    r"""A tilt of base points u = (z, ε): codes from the model's prior, and standard normal numbers beside them.

    .. math:: p_E(u) = e^{-E(u)}\, p_0(z)\, N(\epsilon; 0, I) / Z

    p₀ is N(0, I), or the learned prior of a VAE that has one.
    """

    model: Any

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the base distribution."""
        u = super().sample_base(n, generator=generator)
        prior = learned_prior(self.model)
        return u if prior is None else torch.cat([prior.placed(self._code(u), generator), self._beside(u)], 1)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base distribution."""
        prior = learned_prior(self.model)
        if prior is None:
            return super().log_base(u)
        check_event("u", u, (self.dim,))
        return prior.log_prob(self._code(u)) + log_normal(self._beside(u))

    def _code(self, u: Tensor) -> Tensor:
        return u[..., : self.model.latent_dim]

    def _beside(self, u: Tensor) -> Tensor:
        return u[..., self.model.latent_dim :]
