"""A small network that makes points from codes, for samplers that are learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, check_number, fail
from latentebm.models.networks import mlp
from latentebm.rng import normal

__all__ = ["SamplerNet"]


class SamplerNet(nn.Module):
    r"""Points from standard normal codes by a perceptron, with Gaussian noise on top.

    .. math:: x = s\, z_{1:d} + g(z) + \sigma \epsilon, \quad z \sim N(0, I_k),\ \epsilon \sim N(0, I_d)

    The noise gives the points a density, and so an entropy, in all d dimensions. The straight part, with which g starts
    at zero, lets them start spread out, as N(0, s² + σ²): a sampler finds no mode of an energy that none of its points
    is near. Of M `members`, told apart by an indicator beside the code, row i is of i mod M. The rest is as for
    :func:`~latentebm.models.networks.mlp`.

    Example:
        >>> source = SamplerNet(2, 2, straight=2.0, noise=0.1)
        >>> round(source.sample(10_000, generator=torch.Generator().manual_seed(0)).std().item(), 1)
        2.0
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
        generator: torch.Generator | None = None,
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
        self.net = mlp(sizes, batch_norm=batch_norm, generator=generator)
        if straight and not batch_norm:
            for p in self.net[-1].parameters():
                nn.init.zeros_(p)

    def forward(self, z: Tensor) -> Tensor:
        """Points (N, dim) of codes (N, latent_dim), without the noise; N is a multiple of the members."""
        inputs = check_event("z", z, (self.latent_dim,))
        if len(self.indicator):
            if len(z) % self.members:
                raise fail("z", f"a multiple of {self.members} rows", len(z), "draw the same number for each member")
            inputs = torch.cat([z, self.indicator.repeat(len(z) // self.members, 1)], 1)
        out: Tensor = self.net(inputs)
        return out + self.straight * z[:, : self.dim] if self.straight else out

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points, noise included; batch normalisation needs ``eval()`` first."""
        like = next(self.parameters())
        z, noise = (normal((n, k), generator, like) for k in (self.latent_dim, self.dim))
        return self(z) + self.noise * noise

    def scales(self) -> Tensor:
        """Learned scales of all normalised activations, flat; empty without batch normalisation."""
        found: list[Tensor] = [m.weight for m in self.net if isinstance(m, nn.BatchNorm1d)]
        return torch.cat(found) if found else next(self.parameters()).new_zeros(0)
