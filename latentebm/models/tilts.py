"""Tilted generative models: a base law times exp(−E); the sign is fixed here, once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_event
from latentebm.models.latent_model import LatentModel

__all__ = ["LatentTilt", "Tilt"]


class Tilt(nn.Module, ABC):
    r"""A standard normal base law in u, tilted by an energy.

    .. math:: p_E(u) = e^{-E(u)}\, N(u; 0, I) / Z

    Low energy is high probability. Energies, log-densities and potentials are in nats.
    """

    dim: int

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the base law."""
        like = next(self.parameters(), torch.empty(0))  # a user's pieces may be plain functions
        return torch.randn(n, self.dim, generator=generator, device=generator.device).to(like)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base law."""
        check_event("u", u, (self.dim,))
        return -0.5 * (u.square().sum(1) + self.dim * math.log(2 * math.pi))

    @abstractmethod
    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,)."""

    @abstractmethod
    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""

    def code(self, u: Tensor) -> Tensor:
        """The model's codes (…, d) that base points (…, dim) hold."""
        return u

    def potential(self, u: Tensor) -> Tensor:
        """Total potential (N,): energy minus log_base."""
        return self.energy(u) - self.log_base(u)


class LatentTilt(Tilt):
    r"""A model's latent prior tilted by an energy of the code.

    .. math:: p_E(z) = e^{-E(z)}\, N(z; 0, I) / Z, \qquad x = \mathrm{decode}(z)

    Arguments:
        model: a VAE, or anything with `latent_dim` and `decode`; it is never changed.
        energy: module mapping (N, d) to (N,).
        transform: optional elementwise map of the energy, such as the calibration of the Jensen objective.

    Raises:
        ValueError: codes of another length.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.models.vae import VAE
        >>> tilt = LatentTilt(VAE((1, 8, 8), 2, width=16), EnergyNet(2))
        >>> tilt.potential(torch.zeros(1, 2))
        tensor([1.8379], grad_fn=<SubBackward0>)
    """

    def __init__(
        self, model: LatentModel, energy: nn.Module, transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.net = energy
        self.transform = transform
        self.dim = model.latent_dim

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,) of codes (N, d), nats."""
        energy = cast(Tensor, self.net(u))
        return energy if self.transform is None else self.transform(energy)

    @property
    def potential(self) -> Callable[[Tensor], Tensor]:
        """Total potential (N,) of codes (N, d); with a gradient in closed form where the energy has one."""
        own = type(self)  # whose energy or base law may be another than the closed form's
        closed = own.energy is LatentTilt.energy and own.log_base is Tilt.log_base
        closed = closed and getattr(self.net, "value_and_grad", None) is not None
        return _ClosedPotential(self) if closed else super().potential

    def decode(self, u: Tensor) -> Tensor:
        """Mean images of codes."""
        return self.model.decode(u)


class _ClosedPotential:
    """A latent tilt's potential whose ``value_and_grad`` chains the energy's own through transform and prior."""

    def __init__(self, tilt: LatentTilt, energy: Any = None) -> None:
        self.tilt = tilt
        self.net: Any = tilt.net if energy is None else energy

    def __call__(self, u: Tensor) -> Tensor:
        return self.tilt.energy(u) - self.tilt.log_base(u)

    @torch.no_grad()
    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        energy, grad = self.net.value_and_grad(u)
        if self.tilt.transform is not None:
            energy, pull = cast(Any, torch.func.vjp(self.tilt.transform, energy))
            grad = pull(torch.ones_like(energy))[0].unsqueeze(1) * grad
        return energy - self.tilt.log_base(u), grad + u

    def compiled(self) -> _ClosedPotential | None:
        build = getattr(self.net, "compiled", None)
        energy = build() if build else None
        return None if energy is None else _ClosedPotential(self.tilt, energy)
