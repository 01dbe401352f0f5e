"""What every tilt has: a base distribution times exp(−E); the sign is fixed here, once."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, fail
from latentebm.gradients import differentiate
from latentebm.models.storage.tilt_folder import save_tilt
from latentebm.rng import normal

__all__ = ["Tilt", "ValueAndGrad", "log_normal"]

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
        # Half precision holds weights well, and the steps of chains badly.
        return normal((n, self.dim), generator, like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32)))

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base distribution."""
        check_event("u", u, (self.dim,))
        return log_normal(u)

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

        `form` gives value and gradient in that form of what the tilt is built on, a network or a tilt, or None.
        """
        return None

    def scaled_network(self) -> tuple[Any, float]:
        """The network whose multiple the energy is, and the factor; None where the energy is something else."""
        return None, 1.0

    def arguments(self) -> dict[str, Any]:
        """What the constructor builds this tilt from; a class that cannot be saved has none."""
        got, fix = f"{type(self).__name__} without one", "return what its constructor takes"
        raise fail("tilt", "a class with a method arguments()", got, fix)

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the tilt, not its model, into a folder: safetensors, JSON, the SHA-256 of both and of the model.

        `load_tilt` reads it. Features and attributes are saved by name: a function must be importable, as
        ``package.module:name``.

        Raises:
            ValueError: a lambda or local function, a module without ``arguments()``, or a folder with a saved tilt.
            OSError: the folder cannot be written.
        """
        return save_tilt(self, folder, overwrite=overwrite)

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
        from latentebm.models.tilts import ScaledTilt

        return ScaledTilt(self, strength)

    __rmul__ = __mul__

    def _over(self, fast: ValueAndGrad | None) -> Tilt | None:
        if fast is None:
            return None
        other = copy.copy(self)
        other.fast = fast
        return other


def log_normal(u: Tensor) -> Tensor:
    """Log-density (N,) of N(0, I) at points (N, D), nats.

    Example:
        >>> log_normal(torch.zeros(1, 2))
        tensor([-1.8379])
    """
    return -0.5 * (u.square().sum(1) + u.shape[1] * math.log(2 * math.pi))
