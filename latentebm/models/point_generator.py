"""A small generator of points, for samplers that are learned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, check_number

__all__ = ["PointGenerator"]


class PointGenerator(nn.Module):
    r"""Points from standard normal codes by a perceptron, with Gaussian noise on top.

    .. math:: x = g(z) + \sigma \epsilon, \quad z \sim N(0, I_k),\ \epsilon \sim N(0, I_d)

    The noise gives the points a density, and so an entropy, in all d dimensions.

    Arguments:
        latent_dim: length k of a code.
        dim: length d of a point.
        hidden: widths of the hidden layers.
        noise: standard deviation σ, in the points' units; 0 for none.
        batch_norm: normalise every layer's activations over the batch, the output's too, each with a learned scale.

    Raises:
        ValueError: a size below one, or negative noise.

    Example:
        >>> generator = PointGenerator(3, 2, noise=0.1)
        >>> generator.sample(5, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        latent_dim: int,
        dim: int,
        *,
        hidden: Sequence[int] = (128, 128),
        noise: float = 0.1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.latent_dim = check_int("latent_dim", latent_dim)
        self.dim = check_int("dim", dim)
        self.noise = check_number("noise", noise, low=0)
        sizes = (latent_dim, *(check_int("hidden", h) for h in hidden), dim)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(sizes):
            layers += [nn.Linear(i, o), *([nn.BatchNorm1d(o)] if batch_norm else []), nn.SiLU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, z: Tensor) -> Tensor:
        """Points (N, dim) of codes (N, latent_dim), without the noise."""
        out: Tensor = self.net(check_event("z", z, (self.latent_dim,)))
        return out

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points, noise included; batch normalisation needs ``eval()`` first."""
        like = next(self.parameters())
        z, noise = (
            torch.randn(n, k, generator=generator, device=generator.device).to(like)
            for k in (self.latent_dim, self.dim)
        )
        return self(z) + self.noise * noise

    def scales(self) -> Tensor:
        """Learned scales of all normalised activations, flat; empty without batch normalisation."""
        found: list[Tensor] = [m.weight for m in self.net if isinstance(m, nn.BatchNorm1d)]
        return torch.cat(found) if found else next(self.parameters()).new_zeros(0)
