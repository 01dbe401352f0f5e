"""Tilted generative models: a base distribution times exp(−E); the sign is fixed here, once."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_event
from latentebm.gradients import differentiate
from latentebm.models.latent_model import LatentModel
from latentebm.rng import normal

__all__ = ["LatentTilt", "Tilt", "ValueAndGrad"]

ValueAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]


class Tilt(nn.Module, ABC):
    r"""A standard normal base distribution in u, tilted by an energy.

    .. math:: p_E(u) = e^{-E(u)}\, N(u; 0, I) / Z

    Low energy is high probability. Energies, log-densities and potentials are in nats.
    """

    dim: int
    # Value and gradient of what the tilt is built on, in a faster form; set in the copies that `with_energy` makes.
    fast: ValueAndGrad | None = None

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the base distribution."""
        like = next(self.parameters(), torch.empty(0))  # a user's pieces may be plain functions
        return normal((n, self.dim), generator, like)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base distribution."""
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

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The potential (N,) and its gradient (N, dim), without a graph."""
        return differentiate(self.potential, u)

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of its energy, such as a compiled program; None where there is no such form.

        Arguments:
            form: the value and gradient in that form of what the tilt is built on, a network or a tilt, or None.
        """
        return None

    def __and__(self, other: Tilt) -> Tilt:
        """Both tilts at once: `ProductTilt`."""
        from latentebm.models.composition import ProductTilt  # these are tilts themselves, as below

        return ProductTilt(self, other)

    def __invert__(self) -> Tilt:
        """The opposite of a tilt of bounded energy: `NegatedTilt`."""
        from latentebm.models.composition import NegatedTilt

        return NegatedTilt(self)

    def __mul__(self, strength: float) -> Tilt:
        """The tilt at another strength: `ScaledTilt`."""
        from latentebm.models.scaled_tilt import ScaledTilt

        return ScaledTilt(self, strength)

    __rmul__ = __mul__

    def _over(self, fast: ValueAndGrad | None) -> Tilt | None:
        if fast is None:
            return None
        other = copy.copy(self)
        other.fast = fast
        return other


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
        >>> tilt.value_and_grad(torch.ones(1, 2))
        (tensor([2.8379]), tensor([[1., 1.]]))
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

    @torch.no_grad()
    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The potential (N,) and its gradient (N, d), in closed form where the network has one.

        A subclass of another energy or base distribution overrides this as well: chains compare the values.
        """
        own = self.fast or cast(ValueAndGrad | None, getattr(self.net, "value_and_grad", None))
        if own is None:
            return super().value_and_grad(u)
        energy, grad = own(u)
        if self.transform is not None:
            energy, pull = cast(Any, torch.func.vjp(self.transform, energy))
            grad = pull(torch.ones_like(energy))[0].unsqueeze(1) * grad
        return energy - Tilt.log_base(self, u), grad + u  # of the standard normal, whose gradient this is

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of its network."""
        return self._over(form(self.net))

    def decode(self, u: Tensor) -> Tensor:
        """Mean images of codes."""
        return self.model.decode(u)
