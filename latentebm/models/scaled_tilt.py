"""A tilt made weaker or stronger without fitting it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_number
from latentebm.models.tilts import Tilt

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
        """Draw (n, dim) points of the tilt's own base law."""
        return self.tilt.sample_base(n, generator=generator)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the tilt's own base law."""
        return self.tilt.log_base(u)

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,), nats."""
        return self.strength * self.tilt.energy(u)

    @property
    def potential(self) -> Callable[[Tensor], Tensor]:
        """Total potential (N,) of base points; with a gradient in closed form where the tilt has one."""
        own = type(self)  # whose energy or base law may be another than the closed form's
        closed = own.energy is ScaledTilt.energy and own.log_base is ScaledTilt.log_base
        closed = closed and getattr(self.tilt.potential, "value_and_grad", None) is not None
        return _ScaledPotential(self) if closed else super().potential

    def code(self, u: Tensor) -> Tensor:
        """The model's codes that base points hold."""
        return self.tilt.code(u)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        return self.tilt.decode(u)


class _ScaledPotential:
    """A scaled tilt's potential λE − log p₀ = λ(E − log p₀) − (1 − λ) log p₀, its gradient from the tilt's own."""

    def __init__(self, tilt: ScaledTilt, whole: Any = None) -> None:
        self.tilt = tilt
        self.whole: Any = tilt.tilt.potential if whole is None else whole

    def __call__(self, u: Tensor) -> Tensor:
        return self.tilt.energy(u) - self.tilt.log_base(u)

    @torch.no_grad()
    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        strength = self.tilt.strength
        value, grad = self.whole.value_and_grad(u)
        # The base law is standard normal: −log p₀ has the gradient u.
        return strength * value - (1 - strength) * self.tilt.log_base(u), strength * grad + (1 - strength) * u

    def compiled(self) -> _ScaledPotential | None:
        build = getattr(self.whole, "compiled", None)
        whole = build() if build else None
        return None if whole is None else _ScaledPotential(self.tilt, whole)
