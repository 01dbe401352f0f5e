"""Two-dimensional distributions with exact densities, on which energies are tried out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_event, check_int, check_number
from latentebm.chunks import chunk_size, in_chunks
from latentebm.rng import integers, normal, uniform

__all__ = ["TOYS", "Checkerboard", "EightGaussians", "Rings", "Toy", "TwoMoons"]


class Toy(ABC):
    """A distribution on the plane, all of it within [−4, 4]² but for the noise's tails; its fields are positive."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                check_number(name, number, low=0, open_low=True)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw n points, (n, 2)."""
        return self._draw(check_int("n", n), generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (N,) of points (N, 2), in nats."""
        return self._log_density(check_event("x", x, (2,)))

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator) -> Tensor: ...

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EightGaussians(Toy):
    r"""Eight equal Gaussians on a circle.

    .. math:: p(x) = \frac18 \sum_{k=0}^{7} N\big(x;\, R(\cos\tfrac{k\pi}{4}, \sin\tfrac{k\pi}{4}),\, s^2 I\big)

    Example:
        >>> x = EightGaussians().sample(1000, generator=torch.Generator().manual_seed(0))
        >>> x.shape, bool((x.norm(dim=1) - 2).abs().max() < 1)
        (torch.Size([1000, 2]), True)
    """

    radius: float = 2.0
    sd: float = 0.2

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        which = integers(8, (n,), generator, "cpu")
        return self._centres()[which] + self.sd * normal((n, 2), generator, torch.empty(0))

    def _log_density(self, x: Tensor) -> Tensor:
        return _mixture(x, self._centres().to(x), self.sd)

    def _centres(self) -> Tensor:
        angle = torch.arange(8) * (math.pi / 4)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)


@dataclass(frozen=True)
class TwoMoons(Toy):
    r"""Two interleaved half circles of radius 1, blurred and scaled; the density integrates over the arcs.

    .. math:: p(x) = \frac{1}{2\pi} \sum_{m=0}^1 \int_0^\pi N\big(x;\, c\, a_m(\theta),\, c^2 s^2 I\big)\, d\theta

    with :math:`a_0 = (\cos\theta - \tfrac12, \sin\theta - \tfrac14)` and :math:`a_1 = -a_0`. The integral is a midpoint
    sum over 128 angles per arc, far finer than a blur `sd` s of at least .02; `scale` is c.

    Example:
        >>> x = TwoMoons().sample(10_000, generator=torch.Generator().manual_seed(0))
        >>> bool(x.mean(0).abs().max() < 0.05)
        True
    """

    sd: float = 0.1
    scale: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("sd", self.sd, low=0.02)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        theta = math.pi * uniform((n,), generator, torch.empty(0))
        sign = 1 - 2 * integers(2, (n, 1), generator, "cpu")
        return self.scale * (sign * _arc(theta) + self.sd * normal((n, 2), generator, torch.empty(0)))

    def _log_density(self, x: Tensor) -> Tensor:
        arc = self.scale * _arc((torch.arange(128) + 0.5) * (math.pi / 128)).to(x)
        return _mixture(x, torch.cat([arc, -arc]), self.scale * self.sd)


@dataclass(frozen=True)
class Rings(Toy):
    r"""Concentric circles, each as likely as the next, blurred.

    .. math:: p(x) = \frac1K \sum_k \frac{1}{2\pi s^2} e^{-(|x|^2 + r_k^2)/2s^2}\, I_0\!\left(\frac{|x| r_k}{s^2}\right)

    Example:
        >>> Rings().log_prob(torch.tensor([[0.8, 0.0]])).exp() > 0.1
        tensor([True])
    """

    radii: tuple[float, ...] = (0.8, 1.6, 2.4)
    sd: float = 0.12

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        angle = 2 * math.pi * uniform((n,), generator, torch.empty(0))
        radius = torch.tensor(self.radii)[integers(len(self.radii), (n,), generator, "cpu")]
        circle = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        return circle + self.sd * normal((n, 2), generator, torch.empty(0))

    def _log_density(self, x: Tensor) -> Tensor:
        norm = x.norm(dim=1, keepdim=True)
        radii, var = torch.tensor(self.radii).to(x), self.sd**2
        # i0e is exp(−|t|) I0(t): together with the exponential it leaves a Gaussian in the radius.
        parts = -(norm - radii).square() / (2 * var) + torch.special.i0e(norm * radii / var).log()
        return parts.logsumexp(1) - math.log(2 * math.pi * var * len(self.radii))


@dataclass(frozen=True)
class Checkerboard(Toy):
    r"""Uniform on the eight dark squares of a 4 × 4 board centred at the origin; its entropy is log(8 side²).

    .. math:: p(x) = \frac{1}{8 a^2} \text{ on dark squares of side } a, \quad 0 \text{ elsewhere}

    Example:
        >>> Checkerboard().log_prob(torch.tensor([[0.5, 0.5], [0.5, 1.5]])).exp()
        tensor([0.1250, 0.0000])
    """

    side: float = 1.0

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        row = integers(4, (n,), generator, "cpu")
        column = 2 * integers(2, (n,), generator, "cpu") + row % 2
        corner = torch.stack([column, row], 1) - 2
        return self.side * (corner + uniform((n, 2), generator, torch.empty(0)))

    def _log_density(self, x: Tensor) -> Tensor:
        square = (x / self.side).floor()
        dark = (square.sum(1) % 2 == 0) & (square >= -2).all(1) & (square < 2).all(1)
        return torch.where(dark, -math.log(8 * self.side**2), -math.inf).to(x.dtype)


TOYS: dict[str, Toy] = {
    "8 Gaussians": EightGaussians(),
    "two moons": TwoMoons(),
    "rings": Rings(),
    "checkerboard": Checkerboard(),
}


def _arc(theta: Tensor) -> Tensor:
    return torch.stack([theta.cos() - 0.5, theta.sin() - 0.25], -1)


def _mixture(x: Tensor, centres: Tensor, sd: float) -> Tensor:
    """Log-density (N,) of an equal mixture of isotropic Gaussians at `centres`, (K, 2)."""

    def summed(rows: Tensor) -> Tensor:
        return (-torch.cdist(rows, centres).square() / (2 * sd**2)).logsumexp(1)

    return in_chunks(summed, x, chunk_size(len(centres), x.device)) - math.log(2 * math.pi * sd**2 * len(centres))
