"""A tilt made weaker or stronger without fitting it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_number
from latentebm.gradients import differentiate
from latentebm.models.tilts import Tilt, ValueAndGrad

__all__ = ["STRONGEST", "ScaledTilt"]

STRONGEST = 1.5


class ScaledTilt(Tilt):
    r"""A tilt whose energy is multiplied by a strength.

    .. math:: p_\lambda(u) \propto e^{-\lambda E(u)}\, p_0(u)

    λ = 0 is the model as it is, 1 the tilt as it was fitted; in between, balance is traded for effective sample
    size, and above 1 the tilt overshoots.

    Arguments:
        tilt: any tilt; it is not changed.
        strength: λ in [0, 1.5].

    Raises:
        ValueError: λ outside that range.

    References:
        Annealed importance sampling (Neal, 2001), whose geometric path this is, https://arxiv.org/abs/physics/9803008

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))
        >>> ScaledTilt(tilt, 0.5).energy(torch.tensor([[3.0]]))
        tensor([1.5000])
    """

    def __init__(self, tilt: Tilt, strength: float) -> None:
        super().__init__()
        self.tilt = tilt
        self.strength = check_number("strength", strength, low=0, high=STRONGEST)
        self.dim = tilt.dim

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

    def code(self, u: Tensor) -> Tensor:
        """The model's codes that base points hold."""
        return self.tilt.code(u)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        return self.tilt.decode(u)
