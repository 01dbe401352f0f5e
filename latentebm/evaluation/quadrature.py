"""Exact evaluation of energies on the plane: everything is a sum over a fine grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, in_chunks
from latentebm.devices import beside
from latentebm.gradients import checked_values
from latentebm.rng import uniform

__all__ = ["Grid", "mmd"]


@dataclass(frozen=True)
class Grid:
    r"""The square [−half, half]² cut into cells² equal cells, each standing for its midpoint.

    .. math:: \log Z \approx \log \sum_{ij} e^{-E(x_{ij})} + \log h^2

    Everything refers to the distribution restricted to the square; `edge_mass` tells whether that cuts anything off.

    Example:
        >>> grid = Grid(8.0, 200)
        >>> abs(grid.log_partition(lambda x: x.square().sum(1) / 2) - math.log(2 * math.pi)) < 1e-5
        True
    """

    half: float = 6.0
    cells: int = 400

    def __post_init__(self) -> None:
        check_number("half", self.half, low=0, open_low=True)
        check_int("cells", self.cells, low=2)

    @property
    def side(self) -> float:
        """Side h of a cell."""
        return 2 * self.half / self.cells

    def points(self) -> Tensor:
        """Midpoints, (cells², 2), the second coordinate fastest."""
        middle = (torch.arange(self.cells) + 0.5) * self.side - self.half
        return torch.cartesian_prod(middle, middle)

    @torch.no_grad()
    def energies(self, energy: Callable[[Tensor], Tensor]) -> Tensor:
        """Energies (cells²,) of the midpoints, in nats, in double precision; each must lie above −∞."""
        size = chunk_size(CHAIN_NUMBERS)
        points = beside(energy, self.points())
        values = in_chunks(lambda x: checked_values(energy, x, "energy"), points, size).double().cpu()
        if bool((values.isnan() | values.isneginf()).any()):
            raise fail("energy", "values above −∞", "NaN or −∞", "bound the energy from below")
        return values

    def log_partition(self, energy: Callable[[Tensor], Tensor]) -> float:
        """Log Z of the energy over the square, in nats."""
        return float(torch.logsumexp(-self.energies(energy), 0)) + 2 * math.log(self.side)

    @torch.no_grad()
    def log_likelihood(self, energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Exact log-density (N,) of points (N, 2) under the energy, in nats."""
        return -energy(beside(energy, x)).double() - self.log_partition(energy)

    def entropy(self, log_prob: Callable[[Tensor], Tensor]) -> float:
        r"""Differential entropy :math:`-\int p \log p` of a log-density, in nats."""
        log_p = -self.energies(lambda x: -log_prob(x))
        p = (log_p - log_p.logsumexp(0)).exp()
        return -float(torch.xlogy(p, p).sum()) + 2 * math.log(self.side)

    def edge_mass(self, energy: Callable[[Tensor], Tensor]) -> float:
        """Probability of the outermost twentieth of each side; large where the distribution reaches beyond."""
        p = torch.softmax(-self.energies(energy), 0).view(self.cells, self.cells)
        rim = max(1, self.cells // 20)
        return 1 - float(p[rim:-rim, rim:-rim].sum())

    def sample(self, energy: Callable[[Tensor], Tensor], n: int, *, generator: torch.Generator) -> Tensor:
        """Independent draws (n, 2): a cell by its probability, then a uniform point of it."""
        p = torch.softmax(-self.energies(energy), 0)
        # Inverting the distribution function: torch.multinomial takes at most 2²⁴ categories.
        share = torch.rand(check_int("n", n), generator=generator, device=generator.device, dtype=torch.float64)
        rows = torch.searchsorted(p.cumsum(0), share.cpu()).clamp(max=len(p) - 1)
        points = self.points()
        return points[rows] + (uniform((n, 2), generator, points) - 0.5) * self.side


def mmd(x: Tensor, y: Tensor, scales: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)) -> float:
    r"""Squared maximum mean discrepancy of two samples, unbiased: around 0, or by chance below, if they are alike.

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j)}{n(n-1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{m(m-1)}
        - \frac{2 \sum_{ij} k(x_i, y_j)}{nm}, \quad k = \frac1S \sum_s e^{-|x - y|^2 / 2 s^2}

    The samples are (n, D) and (m, D), n, m ≥ 2; `scales` are the widths s of the Gaussian kernels, in the data's units.

    References:
        A kernel two-sample test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = torch.randn(500, 2, generator=g), torch.randn(500, 2, generator=g)
        >>> abs(mmd(a, b)) < 0.01, mmd(a, b + 1) > 0.05
        (True, True)
    """
    if min(len(x), len(y)) < 2:
        raise fail("x and y", "at least 2 points each", (len(x), len(y)), "draw more")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = torch.cdist(a, b).square()
        return torch.stack([(-squares / (2 * s**2)).exp() for s in scales]).mean(0)

    def within(a: Tensor) -> float:
        return float((kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())
