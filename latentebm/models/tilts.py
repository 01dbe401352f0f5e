"""Tilts of codes: a model's prior times exp(−E), and a tilt at another strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_number, fail
from latentebm.gradients import differentiate
from latentebm.models.base.abstract_tilt import Tilt, ValueAndGrad, log_normal
from latentebm.models.base.code_tilt import CodeTilt
from latentebm.models.base.mixture_prior import learned_prior
from latentebm.models.latent_model import LatentModel

__all__ = ["STRONGEST", "LatentTilt", "ScaledTilt"]

STRONGEST = 1.5  # multiple of a tilt's energy


class LatentTilt(CodeTilt):
    r"""A model's latent prior tilted by an energy of the code.

    .. math:: p_E(z) = e^{-E(z)}\, p_0(z) / Z, \qquad x = \mathrm{decode}(z)

    The model, a VAE or anything with `latent_dim` and `decode`, is never changed; its prior p₀ is N(0, I), or a learned
    one. The energy maps (N, d) to (N,), the `transform` its values one by one, as the calibration of the Jensen
    objective does.

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
        if not hasattr(model, "latent_dim"):
            raise fail("model", "a model of latent codes", type(model).__name__, "wrap it by WrappedModel(...)")
        self.model = model
        self.net = energy
        self.transform = transform
        self.dim = model.latent_dim

    def arguments(self) -> dict[str, Any]:
        """Model, energy and transform."""
        return {"model": self.model, "energy": self.net, "transform": self.transform}

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
        prior = learned_prior(self.model)
        base, base_grad = (log_normal(u), -u) if prior is None else prior.value_and_grad(u)
        return energy - base, grad - base_grad

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of its network."""
        return self._over(form(self.net))

    def scaled_network(self) -> tuple[Any, float]:
        """The network itself, unless its values are transformed, or the base distribution is not N(0, I)."""
        plain = self.transform is None and learned_prior(self.model) is None
        return (self.net if plain else None), 1.0

    def decode(self, u: Tensor) -> Tensor:
        """Mean images of codes; ValueError where the energy was fitted through another model, or another prompt."""
        if getattr(self.net, "model", self.model) is not self.model:
            fix = "put the model back, or fit the tilt to the other one"
            raise fail("model", "the one whose data the energy sees", "another", fix)
        return self.model.decode(u)


class ScaledTilt(Tilt):
    r"""A tilt whose energy is multiplied by a strength.

    .. math:: p_\lambda(u) \propto e^{-\lambda E(u)}\, p_0(u)

    λ = 0 is the model as it is, 1 the tilt as it was fitted, which does not change; in between, balance is traded for
    effective sample size, and above 1, to 1.5 at most, the tilt overshoots.

    References:
        Annealed importance sampling (Neal, 2001), whose geometric path this is, https://arxiv.org/abs/physics/9803008

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))
        >>> ScaledTilt(tilt, 0.5).energy(torch.tensor([[3.0]]))
        tensor([1.5000])
    """

    def __init__(self, tilt: Tilt, strength: float) -> None:
        super().__init__()
        self.tilt = tilt
        self.strength = check_number("strength", strength, low=0, high=STRONGEST)
        self.dim = tilt.dim

    def arguments(self) -> dict[str, Any]:
        """Tilt and strength."""
        return {"tilt": self.tilt, "strength": self.strength}

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the tilt's own base distribution."""
        return self.tilt.sample_base(n, generator=generator)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the tilt's own base distribution."""
        return self.tilt.log_base(u)

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,), nats."""
        return self.strength * self.tilt.energy(u)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""The potential :math:`\lambda(E - \log p_0) - (1 - \lambda)\log p_0` (N,) and its gradient (N, dim)."""
        own, rest = self.fast or self.tilt.value_and_grad, 1 - self.strength
        if own is None:
            return super().value_and_grad(u)
        value, grad = own(u)
        if not rest:
            return value, grad
        base, base_grad = differentiate(self.log_base, u)
        return self.strength * value - rest * base, self.strength * grad - rest * base_grad

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of the one that it scales."""
        return self._over(form(self.tilt))

    def scaled_network(self) -> tuple[Any, float]:
        """The network of the tilt that it scales, times the strength."""
        network, strength = self.tilt.scaled_network()
        return network, self.strength * strength

    def code(self, u: Tensor) -> Tensor:
        """The model's codes that base points hold."""
        return self.tilt.code(u)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        return self.tilt.decode(u)
