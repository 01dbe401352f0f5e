"""Langevin kernels: one update rule, two scales each, Metropolis-adjusted or not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentebm.checks import check_number, fail
from latentebm.sampling.target import Potential, WithoutGradient

__all__ = ["MALA", "SGLD", "ULA", "ImproperSGLD", "Kernel", "RandomWalk", "check_kernel", "check_preconditioner"]

KERNELS = "ULA, SGLD, ImproperSGLD, MALA, RandomWalk, PCN, PCNL or EllipticalSlice"


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    r"""A Langevin kernel: the drift and noise scales of each step. All take these arguments besides their own.

    .. math:: x' = x - d_t P \nabla U(x) + s_t P^{1/2} \xi, \quad \xi \sim N(0, I)

    Up to the discretisation it samples :math:`e^{-U/T}` with temperature :math:`T = s^2 / 2d`.

    The preconditioner is the positive diagonal :math:`P`, shaped as one event or broadcast to it. An unadjusted chain
    whose gradient's norm meets the bound `clip` is biased, and the share of clipped gradients is reported; a
    Metropolis-adjusted one stays exact.
    """

    preconditioner: Tensor | None = None
    clip: float | None = None
    adjusted: ClassVar[bool] = False
    gradient: ClassVar[bool] = True
    stepped: ClassVar[bool] = True  # whether there is a step to tune
    alone: ClassVar[bool] = False  # whether its chains' energies are the tilt's alone, without the base distribution

    def __post_init__(self) -> None:
        if self.clip is not None:
            check_number("clip", self.clip, low=0, open_low=True)
        p = self.preconditioner
        if p is not None and not isinstance(p, Tensor):
            raise fail("preconditioner", "a tensor or None", repr(p), "pass torch.tensor([...]), one per coordinate")
        if p is not None and not bool((torch.isfinite(p) & (p > 0)).all()):
            raise fail("preconditioner", "positive finite entries", p, "pass for example the variances of a pilot run")

    @abstractmethod
    def scales(self, t: int) -> tuple[float, float]:
        """Drift and noise scales of step `t`, counted from 0."""

    def sees(self, target: Potential, x: Tensor) -> Potential:
        """What the kernel looks at of a target: all of it, or all but its gradient; `x` are points to check it at."""
        return target if self.gradient else WithoutGradient(target)

    def block(self, generator: torch.Generator) -> Callable[..., Any] | None:
        """A block of steps of the kernel's own, in the form of `move_block`, or None for Langevin steps."""
        return None

    def with_step(self, step: float) -> Kernel:
        """Return the same kernel at another step size."""
        raise fail("kernel", "one with a step to adapt", type(self).__name__, "use ULA or MALA")


@dataclass(frozen=True)
class _Stepped(Kernel):
    step: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("step", self.step, low=0, high=1e12, open_low=True, fix="pass a positive step size such as 0.01")
        check_number("temperature", self.temperature, low=0, high=1e12)

    def scales(self, t: int) -> tuple[float, float]:
        return self.step, math.sqrt(2 * self.step * self.temperature)

    def with_step(self, step: float) -> Kernel:
        return replace(self, step=step)


@dataclass(frozen=True)
class ULA(_Stepped):
    r"""Unadjusted Langevin algorithm.

    .. math:: x' = x - \eta \nabla U(x) + \sqrt{2 \eta T}\, \xi

    On :math:`N(0, s^2)` its variance is :math:`T s^2 / (1 - \eta / 2s^2)`: the bias is of the order of the step.

    At temperature T = 0 it is gradient descent.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts and Tweedie, 1996)

    Example:
        >>> ULA(0.5).scales(0)
        (0.5, 1.0)
    """


@dataclass(frozen=True)
class MALA(_Stepped):
    r"""Metropolis-adjusted Langevin algorithm: the ULA step as a proposal, then an accept–reject test; exact.

    .. math::
        \log \alpha = \frac{U(x) - U(y)}{T}
        + \frac{|y - x + \eta \nabla U(x)|^2 - |x - y + \eta \nabla U(y)|^2}{4 \eta T}, \quad T > 0
    """

    adjusted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, low=0, open_low=True, fix="use ULA for temperature 0")


@dataclass(frozen=True)
class RandomWalk(Kernel):
    r"""Random-walk Metropolis: a Gaussian proposal around the point, then an accept–reject test; exact, no gradients.

    .. math:: y = x + s P^{1/2} \xi, \quad \log \alpha = U(x) - U(y)

    A step s of 2.4 standard deviations of the distribution suits one dimension; there is no gradient to clip.

    References:
        Equation of state calculations by fast computing machines (Metropolis et al., 1953),
        https://doi.org/10.1063/1.1699114
    """

    step: float
    adjusted: ClassVar[bool] = True
    gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("step", self.step, low=0, high=1e12, open_low=True, fix="pass a positive step size such as 0.5")
        if self.clip is not None:
            raise fail("clip", "None", self.clip, "leave it out: a random walk has no gradient to bound")

    def scales(self, t: int) -> tuple[float, float]:
        """No drift, and the proposal's standard deviation."""
        return 0.0, self.step

    def with_step(self, step: float) -> Kernel:
        """Return the same kernel at another step size."""
        return replace(self, step=step)


@dataclass(frozen=True)
class SGLD(Kernel):
    r"""Stochastic gradient Langevin dynamics with a polynomially decreasing step; the noise's *variance* is the step.

    .. math:: \epsilon_t = a (b + t)^{-\gamma}, \quad
        x' = x - \tfrac12 \epsilon_t \nabla U(x) + \sqrt{\epsilon_t T}\, \xi

    The scale a and the offset b are positive, and T is not negative; the rate γ is of [0, 1], of which convergence to
    the exact distribution asks for (0.5, 1].

    References:
        Bayesian learning via stochastic gradient Langevin dynamics (Welling and Teh, 2011)

    Example:
        >>> SGLD(a=8.0, b=4.0, gamma=0.5).scales(0)
        (2.0, 2.0)
    """

    a: float = 0.01
    b: float = 1.0
    gamma: float = 0.55
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("a", self.a, low=0, high=1e12, open_low=True, fix="pass a positive scale such as 0.01")
        check_number("b", self.b, low=0, high=1e12, open_low=True)
        check_number("gamma", self.gamma, low=0, high=1)
        check_number("temperature", self.temperature, low=0, high=1e12)

    def scales(self, t: int) -> tuple[float, float]:
        """Half the step epsilon_t, and the root of it times the temperature."""
        epsilon = self.a * (self.b + t) ** -self.gamma
        return epsilon / 2, math.sqrt(epsilon * self.temperature)


@dataclass(frozen=True)
class ImproperSGLD(Kernel):
    r"""Langevin steps whose drift and noise are set apart, as is usual for image energies.

    .. math:: x' = x - \tfrac12 \alpha \nabla U(x) + \sigma \xi, \quad T = \sigma^2 / \alpha

    No scale suits every energy, so there is no default: at :math:`\alpha = 2` a unit-normal prior alone is mapped to 0
    in one step.

    Example:
        >>> ImproperSGLD(alpha=2.0, sigma=0.01).temperature
        5e-05
    """

    alpha: float
    sigma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, low=0, high=1e12, open_low=True, fix="pass a positive drift such as 0.1")
        check_number("sigma", self.sigma, low=0, high=1e12, fix="pass a noise of 0 or more such as 0.1")

    @property
    def temperature(self) -> float:
        """Temperature sigma²/alpha of the distribution it samples."""
        return self.sigma**2 / self.alpha

    def scales(self, t: int) -> tuple[float, float]:
        """Drift alpha/2 and noise sigma, whatever the step."""
        return self.alpha / 2, self.sigma


def check_kernel(kernel: Kernel) -> Kernel:
    """Return `kernel` if it is one, or raise a ValueError."""
    if not isinstance(kernel, Kernel):
        raise fail("kernel", KERNELS, repr(kernel), "pass for example MALA(0.1)")
    return kernel


def check_preconditioner(kernel: Kernel, event: tuple[int, ...]) -> None:
    """Raise a ValueError if a kernel's preconditioner cannot be broadcast to one event."""
    shape = () if kernel.preconditioner is None else tuple(kernel.preconditioner.shape)
    extra = len(event) - len(shape)
    if extra < 0 or any(p not in (1, e) for p, e in zip(shape, event[extra:], strict=True)):
        expected = f"a shape that broadcasts to {tuple(event)}"
        raise fail("preconditioner", expected, shape, "pass one entry per coordinate")
