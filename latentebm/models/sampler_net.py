"""A small generator of points, for samplers that are learned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, check_number, fail

__all__ = ["SamplerNet"]


class SamplerNet(nn.Module):
    r"""Points from standard normal codes by a perceptron, with Gaussian noise on top.

    .. math:: x = s\, z_{1:d} + g(z) + \sigma \epsilon, \quad z \sim N(0, I_k),\ \epsilon \sim N(0, I_d)

    The noise gives the points a density, and so an entropy, in all d dimensions. The straight part lets them start
    spread out, as N(0, s² + σ²): a sampler finds no mode of an energy that none of its points is near.

    Arguments:
        latent_dim: length k of a code.
        dim: length d of a point.
        hidden: widths of the hidden layers.
        noise: standard deviation σ, in the points' units; 0 for none.
        straight: scale s of the straight part, in the points' units; 0 for none. With it g starts at zero.
        batch_norm: normalise every layer's activations over the batch, the output's too, each with a learned scale.
        members: laws told apart by an indicator beside the code. Rows take turns: row i is a point of law i mod M.

    Raises:
        ValueError: a size below one, a negative scale or noise, or a straight part of codes shorter than the points.

    Example:
        >>> generator = SamplerNet(3, 2, noise=0.1)
        >>> generator.sample(5, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """

    indicator: Tensor

    def __init__(
        self,
        latent_dim: int,
        dim: int,
        *,
        hidden: Sequence[int] = (128, 128),
        noise: float = 0.1,
        straight: float = 0.0,
        batch_norm: bool = False,
        members: int = 1,
    ) -> None:
        super().__init__()
        self.latent_dim = check_int("latent_dim", latent_dim)
        self.dim = check_int("dim", dim)
        self.noise = check_number("noise", noise, low=0)
        self.straight = check_number("straight", straight, low=0)
        if straight and latent_dim < dim:
            raise fail("latent_dim", f"at least dim={dim} with a straight part", latent_dim, "lengthen the codes")
        self.members = check_int("members", members)
        told_apart = members if members > 1 else 0
        self.register_buffer("indicator", torch.eye(told_apart), persistent=False)
        sizes = (latent_dim + told_apart, *(check_int("hidden", h) for h in hidden), dim)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(sizes):
            layers += [nn.Linear(i, o), *([nn.BatchNorm1d(o)] if batch_norm else []), nn.SiLU()]
        self.net = nn.Sequential(*layers[:-1])
        if straight and not batch_norm:
            for p in layers[-2].parameters():
                nn.init.zeros_(p)

    def forward(self, z: Tensor) -> Tensor:
        """Points (N, dim) of codes (N, latent_dim), without the noise; N is a multiple of the members."""
        inputs = check_event("z", z, (self.latent_dim,))
        if len(self.indicator):
            if len(z) % len(self.indicator):
                raise fail("z", f"a multiple of {len(self.indicator)} rows", len(z), "draw as many of each member")
            inputs = torch.cat([z, self.indicator.repeat(len(z) // len(self.indicator), 1)], 1)
        out: Tensor = self.net(inputs)
        return out + self.straight * z[:, : self.dim] if self.straight else out

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
