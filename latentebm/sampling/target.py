"""All that samplers know of a model: a base distribution, an energy, and what they ask of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.gradients import checked_values, differentiate
from latentebm.rng import stream

__all__ = ["Potential", "Target", "WithoutGradient", "agrees", "check_gradient", "check_own_gradient"]
__all__ += ["piecewise_constant", "plain_potential", "probe", "target_device", "tilt_energy", "value_and_grad"]

PROBED = 256  # points at which an energy and its gradient are looked at
FLAT = 1e-3  # nats between energies that count as different; slopes a hundred times smaller count as none


@runtime_checkable
class Target(Protocol):
    r"""A base distribution times a tilt, :math:`p_E(u) \propto e^{-E(u)} p_0(u)`.

    A subclass inherits `potential` and `value_and_grad`; a target without `value_and_grad` is differentiated.

    Example:
        >>> class Shifted(Target):
        ...     def sample_base(self, n, *, generator):
        ...         return torch.randn(n, 1, generator=generator)
        ...
        ...     def log_base(self, u):
        ...         return -u.square().sum(1) / 2
        ...
        ...     def energy(self, u):
        ...         return -u.sum(1)
        ...
        ...     def decode(self, u):
        ...         return u
        >>> Shifted().value_and_grad(torch.ones(1, 1))
        (tensor([-0.5000]), tensor([[0.]]))
    """

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, D) points of the base distribution; the generator may live on the CPU or on a device."""
        ...

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base distribution, in nats."""
        ...

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,), in nats; low energy is high probability."""
        ...

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        ...

    def potential(self, u: Tensor) -> Tensor:
        """Total potential (N,): energy minus log_base."""
        return self.energy(u) - self.log_base(u)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The potential (N,) and its gradient (N, D)."""
        return differentiate(self.potential, u)


Potential = Callable[[Tensor], Tensor] | Target  # of points (N, *event): values (N,), nats


def target_device(target: Target) -> torch.device | None:
    """The device of a target's parameters, or None where it has none."""
    parameters = getattr(target, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    return getattr(first, "device", None)


def tilt_energy(tilt: Target, u: Tensor) -> Tensor:
    """Tilt energies (N,) of base points (N, D), refused unless they are one floating number per point."""
    if not u.is_floating_point():
        raise fail("sample_base", "floating points", str(u.dtype), "convert them with .float()")
    return checked_values(tilt.energy, u, "energy")


def probe(tilt: Target) -> Tensor:
    """Energies of 256 base points, the same for the same tilt: they tell one from another."""
    return tilt_energy(tilt, tilt.sample_base(PROBED, generator=stream(0)))


def plain_potential(target: Potential) -> Callable[[Tensor], Tensor]:
    """The potential of a target, or a callable as it is."""
    return cast(Callable[[Tensor], Tensor], getattr(target, "potential", target))


def value_and_grad(target: Potential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Potential (N,) and its gradient (N, *event) at points, by its own ``value_and_grad`` or else by autograd."""
    own = getattr(target, "value_and_grad", None)
    if own is None:
        return differentiate(plain_potential(target), x)
    value, grad = own(x)
    if value.shape != x.shape[:1] or grad.shape != x.shape:
        got, expected = (f"{tuple(v)} and {tuple(g)}" for v, g in ((value.shape, grad.shape), (x.shape[:1], x.shape)))
        fix = "return one energy and one gradient per chain"
        raise fail("potential", f"shapes {expected} of value_and_grad", got, fix)
    return value, grad


class WithoutGradient:
    """A potential with zeros for its gradient, for kernels that take none: nothing is differentiated."""

    def __init__(self, target: Potential) -> None:
        self.potential = plain_potential(target)

    def __call__(self, x: Tensor) -> Tensor:
        """Potential (N,) of points (N, *event)."""
        return self.potential(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Potential (N,) and zeros shaped as the points."""
        return checked_values(self.potential, x.detach()).detach(), torch.zeros_like(x)


@torch.no_grad()
def agrees(target: Potential, form: Potential, x: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether another form of a target gives its potential at the first 256 points (N, *event)."""
    x, potential = x[:PROBED], plain_potential(target)
    value, plain = value_and_grad(form, x)[0], checked_values(potential, x)
    # A noisy potential, which differs from itself, can't be compared.
    return _alike(value, plain, tolerance) or not _alike(checked_values(potential, x), plain, tolerance)


def check_own_gradient(target: Potential, x: Tensor) -> None:
    """Refuse a target whose own ``value_and_grad`` is of another potential, as of the class that it extends."""
    if getattr(target, "value_and_grad", None) is None or agrees(target, target, x):
        return
    name = type(target).__name__
    expected = f"the values of {name}'s potential from value_and_grad"
    fix = "override value_and_grad as well where the energy or base is overridden, or set it to None there"
    raise fail("value_and_grad", expected, "other ones", f"{fix} to differentiate automatically")


def _alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return torch.allclose(a.to(b), b, rtol=tolerance, atol=tolerance, equal_nan=True)


def check_gradient(tilt: Target, u: Tensor) -> None:
    """Refuse an energy that differs between the first 256 of base points (N, D) but has no gradient at any.

    An unadjusted chain sees an energy by its gradient alone: over a hard label it would draw from the base.
    """
    if piecewise_constant(tilt, u):
        expected, got = "a differentiable one, which unadjusted kernels need", "a piecewise constant one"
        raise fail("energy", expected, got, "draw by SNIS, or by Langevin with MALA or RandomWalk")


def piecewise_constant(tilt: Target, u: Tensor) -> bool:
    """Whether an energy differs between the first 256 of base points (N, D) but has no gradient at any."""
    u = u[:PROBED].detach()
    with torch.no_grad():
        energy = tilt_energy(tilt, u)
    if not float(energy.max() - energy.min()) > FLAT:
        return False
    total = value_and_grad(tilt, u)[1]
    base = differentiate(lambda u: tilt.log_base(u) + 0 * u.flatten(1).sum(1), u)[1]  # which may be constant
    return float((total + base).abs().max()) < FLAT * 1e-2
