"""What a learned sampler minimises: the potential of its points less their entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from latentebm.checks import check_choice, check_event, check_int, check_number, fail
from latentebm.devices import device_of
from latentebm.models.networks import mlp
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives import sampler_entropy as entropies
from latentebm.objectives.sampler_entropy import Bound
from latentebm.rng import normal

__all__ = ["Entropy", "Potential", "SamplerLoss", "constant"]

Entropy = Literal["variational", "mutual-information", "scales"]
Potential = Callable[[Tensor], Tensor]


class SamplerLoss(nn.Module):
    r"""A sampler's loss, with the critic that the mutual information needs.

    .. math:: E_G[U(x)] - w H(G)

    The entropy is ``variational``, of `pairs` of opposite importance draws per point, or ``mutual-information``, which
    both need noise, or ``scales``, which needs batch normalisation; w is 1 for the potential's own distribution.

    Example:
        >>> loss, g = SamplerLoss(SamplerNet(2, 2), "mutual-information"), torch.Generator().manual_seed(0)
        >>> loss(lambda x: x.square().sum(1) / 2, 8, g).backward()
        >>> all(bool(p.grad.any()) for p in loss.source.parameters())
        True
    """

    def __init__(
        self,
        source: SamplerNet,
        entropy: Entropy = "variational",
        *,
        bound: Bound = "donsker-varadhan",
        weight: float = 1.0,
        pairs: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.entropy = check_choice("entropy", entropy, get_args(Entropy))
        self.bound = cast(Bound, check_choice("bound", bound, get_args(Bound)))
        self.weight = check_number("entropy_weight", weight, low=0)
        self.pairs = check_int("pairs", pairs)
        if entropy != "scales" and not source.noise:
            raise fail("source", f"noise above 0 for entropy={entropy}", 0, "pass SamplerNet(…, noise=0.1)")
        if entropy == "scales" and not source.scales().numel():
            raise fail("source", "batch normalisation for entropy=scales", "no such layer", "pass batch_norm=True")
        self.source = source
        sizes = (source.dim + source.latent_dim, 128, 128, 1)
        critic = mlp(sizes, generator=generator).to(device_of(source)) if entropy == "mutual-information" else None
        self.critic = critic

    def forward(self, potential: Potential, n: int, generator: torch.Generator) -> Tensor:
        """The loss on `n` fresh points."""
        like = next(self.source.parameters())
        z, noise = (normal((n, k), generator, like) for k in (self.source.latent_dim, self.source.dim))
        x = check_event("source", self.source(z), (self.source.dim,)) + self.source.noise * noise
        values = check_event("potential", potential(x), ())
        return values.mean() - self.weight * self._entropy(x, z, generator)

    def _entropy(self, x: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:
        """The entropy, or a number with its gradient."""
        if self.entropy == "scales":
            return entropies.scale_entropy(self.source.scales())
        if self.critic is not None:
            on_pairs = self.critic(torch.cat([x, z], 1)).squeeze(1)
            off_pairs = torch.cat([self.critic(torch.cat([x, z.roll(s, 0)], 1)).squeeze(1) for s in (1, 2, 3)])
            return entropies.mutual_information(on_pairs, off_pairs, bound=self.bound)
        decode, noise = constant(self.source), self.source.noise
        found = entropies.sampler_score(decode, x.detach(), z, noise=noise, k=self.pairs, generator=generator)
        return entropies.entropy_surrogate(x, found.score)


def constant(module: nn.Module) -> Potential:
    """The module as a function of its input alone: gradients pass through it to the points, not to its parameters.

    Example:
        >>> layer, x = nn.Linear(1, 1), torch.ones(1, 1, requires_grad=True)
        >>> constant(layer)(x).sum().backward()
        >>> layer.weight.grad is None, x.grad is None
        (True, False)
    """

    def call(x: Tensor) -> Tensor:
        # Looked up at each call: the parameters move.
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        return cast(Tensor, functional_call(module, parameters, (x,)))

    return call
