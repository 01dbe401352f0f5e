"""Energies of a point at a noise level, for score matching at many levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.models.networks import mlp

__all__ = ["NoiseEnergy"]


class NoiseEnergy(nn.Module):
    r"""One perceptron for the energies of data under every noise level from `high` down to `low`.

    .. math:: E(x, \sigma) = f\Big(\frac{x}{\sigma + 3 \sigma_{low}}, \log \sigma\Big)
        + \frac{|x|^2}{2 (s^2 + \sigma^2)} + \frac{d}{2} \log (s^2 + \sigma^2)
        \quad\text{or}\quad E(x, \sigma) = f(x) / \sigma

    At the largest levels the data are mostly noise, which the Gaussian describes; at the least the perceptron's input
    is stretched to the size of the details. Called without a level it is the energy at `low`, (N, d) to (N,), and
    serves wherever an energy does.

    In the data's units, `low` is well within their finest detail, `high` about their extent, and `spread` s about their
    standard deviation; they should be centred. The `conditioning` is ``input``, the first form, the logarithm scaled to
    ±1, or ``scaled``, the second, which is only right where every level has points of its own, as in high dimension.

    References:
        Improved techniques for training score-based generative models (Song and Ermon, 2020),
        https://arxiv.org/abs/2006.09011

    Example:
        >>> energy = NoiseEnergy(2, low=0.1, high=2.0)
        >>> x = torch.randn(5, 2)
        >>> torch.equal(energy(x), energy(x, torch.full((5,), 0.1)))
        True
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        dim: int,
        *,
        low: float,
        high: float,
        hidden: Sequence[int] = (128, 128),
        spread: float = 1.0,
        conditioning: str = "input",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_number("low", low, low=0, open_low=True)
        if check_number("high", high, low=0, open_low=True) <= low:
            raise fail("high", f"a level above low={low:g}", high, "pass about the data's extent")
        self.spread = check_number("spread", spread, low=0, open_low=True)
        self.conditioning = check_choice("conditioning", conditioning, ("input", "scaled"))
        self.dim = check_int("dim", dim)
        self.register_buffer("low", torch.tensor(float(low)))
        self.register_buffer("high", torch.tensor(float(high)))
        sizes = (dim + (conditioning == "input"), *(check_int("hidden", h) for h in hidden), 1)
        self.net = mlp(sizes, generator=generator)

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Energies (N,) of points (N, dim) at noise levels (N,), or at the least level."""
        levels = self.low.expand(len(x)) if sigma is None else sigma
        if self.conditioning == "scaled":
            return self.net(x).squeeze(-1) / levels
        variance = self.spread**2 + levels.square()
        gaussian = x.square().sum(1) / (2 * variance) + self.dim / 2 * variance.log()
        stretched = x / (levels + 3 * self.low)[:, None]
        centred = 2 * (levels / self.low).log() / (self.high / self.low).log() - 1
        return gaussian + self.net(torch.cat([stretched, centred[:, None]], 1)).squeeze(-1)

    def levels(self, n: int) -> Tensor:
        """`n` noise levels from high down to low, in geometric progression."""
        ends = math.log(self.high.item()), math.log(self.low.item())
        return torch.linspace(*ends, check_int("n", n, low=2), device=self.low.device).exp()
