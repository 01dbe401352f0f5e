"""Kernels that keep a standard normal base distribution by themselves, and so do not slow down with dimension."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from latentebm.checks import check_number, fail
from latentebm.gradients import differentiate
from latentebm.sampling.mcmc.kernels import Kernel
from latentebm.sampling.mcmc.moves import MoveBlock, Point, move_block
from latentebm.sampling.target import FLAT, PROBED, Potential, Target, tilt_energy

__all__ = ["PCN", "PCNL", "BaseKernel", "TiltAlone", "is_normal"]


class TiltAlone:
    """A target's energy without its standard normal base distribution; zeros for its gradient where none is asked."""

    def __init__(self, target: Target, *, gradient: bool) -> None:
        self.target, self.gradient = target, gradient

    def __call__(self, u: Tensor) -> Tensor:
        """Tilt energies (N,) of points (N, D)."""
        return tilt_energy(self.target, u)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Tilt energies (N,) and their gradients (N, D)."""
        if not self.gradient:
            return self(u.detach()).detach(), torch.zeros_like(u)
        return differentiate(lambda u: self(u) + 0 * u.flatten(1).sum(1), u)  # which may be constant


@dataclass(frozen=True, kw_only=True)
class BaseKernel(Kernel):
    """A kernel under which N(0, I) is invariant: it looks at the tilt's energy alone, which is its chains' energy.

    Raises:
        ValueError: a preconditioner or a clip; when chains start: a target without an energy, or of another base.
    """

    adjusted: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("preconditioner", "clip"):
            if getattr(self, name) is not None:
                fix = "leave it out: the base distribution sets the scale"
                raise fail(name, f"None for {type(self).__name__}", getattr(self, name), fix)

    def sees(self, target: Potential, x: Tensor) -> Potential:
        """The energy alone of a target whose base distribution is N(0, I), checked at up to 256 of points (N, D)."""
        if isinstance(target, TiltAlone):
            return target
        name = type(self).__name__
        if not all(callable(getattr(target, part, None)) for part in ("energy", "log_base")):
            expected, got = f"a target with energy and log_base for {name}", type(target).__name__
            raise fail("potential", expected, got, "pass a tilt, or use MALA or RandomWalk")
        tilt: Target = target  # type: ignore[assignment]
        if isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 and len(x):
            self._check(tilt, x[:PROBED].detach())
        return TiltAlone(tilt, gradient=self.gradient)

    def _check(self, tilt: Target, x: Tensor) -> None:
        if not is_normal(tilt, x):
            expected, got = f"a standard normal one for {type(self).__name__}", "another density"
            raise fail("log_base", expected, got, "use MALA or RandomWalk")


@torch.no_grad()
def is_normal(tilt: Target, x: Tensor) -> bool:
    """Whether the base distribution of a target has the density of N(0, I) at points (N, D)."""
    own, normal = tilt.log_base(x), -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
    return own.shape == normal.shape and torch.allclose(own.to(normal), normal, atol=1e-3)


@dataclass(frozen=True)
class _Autoregressive(BaseKernel):
    """A proposal that shrinks towards the base distribution's mean, accepted or rejected."""

    @abstractmethod
    def propose(self, point: Point, noise: Tensor) -> Tensor:
        """Proposals (N, D) from a point (positions, energies, gradients) and standard normal draws."""

    @abstractmethod
    def log_ratio(self, old: Point, new: Point) -> Tensor:
        """Log Metropolis–Hastings ratio (N,) of proposals against points."""

    def block(self, generator: torch.Generator) -> MoveBlock:
        """The Langevin block with this proposal and ratio."""
        return functools.partial(move_block, rule=self)


@dataclass(frozen=True)
class PCN(_Autoregressive):
    r"""Preconditioned Crank–Nicolson: a step that leaves N(0, I) as it is, so that only the tilt's energy is tested.

    .. math:: y = \sqrt{1 - \beta^2}\, x + \beta \xi, \quad \log \alpha = E(x) - E(y)

    Its acceptance does not fall with dimension, and it takes no gradient.

    Arguments:
        beta: share of fresh noise, of (0, 1]; 1 proposes independent base draws.

    References:
        MCMC methods for functions: modifying old algorithms to make them faster (Cotter et al., 2013),
        https://arxiv.org/abs/1202.0709

    Example:
        >>> PCN(0.6).propose((torch.ones(1, 2), torch.zeros(1), torch.zeros(1, 2)), torch.zeros(1, 2))
        tensor([[0.8000, 0.8000]])
    """

    beta: float
    gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, low=0, high=1, open_low=True)

    def scales(self, t: int) -> tuple[float, float]:
        """No drift, and the share of noise."""
        return 0.0, self.beta

    def with_step(self, step: float) -> Kernel:
        """Return the same kernel at another share of noise, at most 1."""
        return replace(self, beta=min(step, 1.0))

    def propose(self, point: Point, noise: Tensor) -> Tensor:
        """Proposals (N, D)."""
        return math.sqrt(1 - self.beta**2) * point[0] + self.beta * noise

    def log_ratio(self, old: Point, new: Point) -> Tensor:
        """The energy's fall (N,): no term of the base distribution."""
        return old[1] - new[1]


@dataclass(frozen=True)
class PCNL(_Autoregressive):
    r"""Preconditioned Crank–Nicolson Langevin: the same with a drift down the tilt's energy.

    .. math::
        y = \frac{(2 - \delta) x - 2 \delta \nabla E(x) + \sqrt{8 \delta}\, \xi}{2 + \delta}, \quad
        \log \alpha = \rho(x, y) - \rho(y, x), \\
        \rho(u, v) = E(u) + \tfrac12 \langle v - u, \nabla E(u) \rangle
        + \tfrac\delta4 \langle u + v, \nabla E(u) \rangle + \tfrac\delta4 |\nabla E(u)|^2

    Arguments:
        delta: step size, of (0, 2]; 2 forgets the point but for its gradient.

    Raises:
        ValueError: when chains start: an energy that is piecewise constant.

    References:
        MCMC methods for functions: modifying old algorithms to make them faster (Cotter et al., 2013),
        https://arxiv.org/abs/1202.0709

    Example:
        >>> PCNL(0.4).propose((torch.ones(1, 2), torch.zeros(1), torch.zeros(1, 2)), torch.zeros(1, 2))
        tensor([[0.6667, 0.6667]])
    """

    delta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("delta", self.delta, low=0, high=2, open_low=True)

    def scales(self, t: int) -> tuple[float, float]:
        """The step size, and the noise's standard deviation."""
        return self.delta, math.sqrt(8 * self.delta) / (2 + self.delta)

    def with_step(self, step: float) -> Kernel:
        """Return the same kernel at another step size, at most 2."""
        return replace(self, delta=min(step, 2.0))

    def propose(self, point: Point, noise: Tensor) -> Tensor:
        """Proposals (N, D)."""
        x, _, grad = point
        return ((2 - self.delta) * x - 2 * self.delta * grad + math.sqrt(8 * self.delta) * noise) / (2 + self.delta)

    def log_ratio(self, old: Point, new: Point) -> Tensor:
        """Log Metropolis–Hastings ratio (N,)."""
        return self._rho(old, new[0]) - self._rho(new, old[0])

    def _rho(self, u: Point, v: Tensor) -> Tensor:
        x, energy, grad = u
        inner = 0.5 * (v - x) + (self.delta / 4) * (x + v + grad)
        return energy + (inner * grad).flatten(1).sum(1)

    def _check(self, tilt: Target, x: Tensor) -> None:
        super()._check(tilt, x)
        energy, grad = TiltAlone(tilt, gradient=True).value_and_grad(x)
        if float(energy.max() - energy.min()) > FLAT and float(grad.abs().max()) < FLAT * 1e-2:
            raise fail(
                "energy", "a differentiable one for PCNL", "a piecewise constant one", "use PCN, without gradients"
            )
