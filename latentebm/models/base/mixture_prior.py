"""A learned prior: the mixture of normal distributions that a VAE's codes really have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int
from latentebm.chunks import chunk_size, in_chunks
from latentebm.rng import uniform

__all__ = ["COPIES", "MixturePrior", "learned_prior"]

COPIES = 8  # of what one code holds: parts of codes whose products stay in a cache


class MixturePrior(nn.Module):
    r"""A mixture of normal distributions with full covariances, in the place of a VAE's standard normal prior.

    .. math:: p_0(z) = \sum_k \pi_k\, N(z; m_k, L_k L_k^\top)

    The codes of all images together are never quite N(0, I): a VAE whose KL term counts little leaves parts of the
    prior empty, which decode to images of no kind. `latentebm.training.fit_prior` fits the mixture to the codes; before
    that its components are all standard normal. The codes have `dim` numbers.

    References:
        Diagnosing and Enhancing VAE Models (Dai and Wipf, 2019), https://arxiv.org/abs/1903.05789; From Variational to
        Deterministic Autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436

    Example:
        >>> prior = MixturePrior(1, 2)
        >>> prior.mean.copy_(torch.tensor([[-3.0], [3.0]])).shape
        torch.Size([2, 1])
        >>> prior.log_prob(torch.tensor([[3.0], [0.0]]))
        tensor([-1.6121, -5.4189])
    """

    share: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        k = check_int("components", components)
        self.register_buffer("share", torch.full((k,), 1 / k))
        self.register_buffer("mean", torch.zeros(k, check_int("dim", dim)))
        self.register_buffer("factor", torch.eye(dim).repeat(k, 1, 1))

    def placed(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Draws (N, d) of the mixture from standard normal ones, each in a component that the generator chooses."""
        at = uniform((len(noise),), generator, self.share)
        k = torch.searchsorted(self.share.cumsum(0), at).clamp(max=len(self.share) - 1)
        order, counts = k.argsort(), k.bincount(minlength=len(self.share)).tolist()
        own = noise.to(self.mean)[order].split(counts)
        z = torch.cat([torch.addmm(m, part, f.T) for m, part, f in zip(self.mean, own, self.factor, strict=True)])
        return torch.empty_like(z).index_copy(0, order, z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density (N,) of codes (N, d), nats."""
        check_event("z", z, self.mean.shape[1:])
        return self.log_each(z).logsumexp(1)

    def log_each(self, z: Tensor) -> Tensor:
        """Log-density (N, K) of codes (N, d) in each component, its share included, nats."""
        inverse, shift, level = self._inverse()

        def each(part: Tensor) -> Tensor:
            white = self._white(part, inverse, shift)
            # In place where no gradient needs them: fresh memory takes longer than the products.
            return level - 0.5 * _sums(white.square() if white.requires_grad else white.square_())

        return in_chunks(each, z, chunk_size(COPIES * self.mean.numel(), z.device))

    @torch.no_grad()
    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density (N,) of codes (N, d) and its gradient (N, d), without a graph."""
        each, pulls = self.each_and_pulls(z)
        return each.logsumexp(1), pulls(each.softmax(1))

    def each_and_pulls(self, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """What `log_each` finds, and what sums the gradients of the components' log-densities by weights (N, K)."""
        inverse, shift, level = self._inverse()
        white = self._white(z, inverse, shift)

        def pulls(weight: Tensor) -> Tensor:
            return -(weight.unsqueeze(2) * white).flatten(1) @ inverse.flatten(0, 1)

        return level - 0.5 * _sums(white.square()), pulls

    def _inverse(self) -> tuple[Tensor, Tensor, Tensor]:
        """L⁻¹ (K, d, d), L⁻¹ m (K d,), and each component's log-density at its mean, its share included (K,)."""
        k, dim = self.mean.shape
        unit = torch.eye(dim).to(self.factor).expand(k, -1, -1)
        inverse = torch.linalg.solve_triangular(self.factor, unit, upper=False)
        volume = self.factor.diagonal(dim1=1, dim2=2).log().sum(1) + 0.5 * dim * math.log(2 * math.pi)
        return inverse, (inverse @ self.mean.unsqueeze(2)).flatten(), self.share.log() - volume

    def _white(self, z: Tensor, inverse: Tensor, shift: Tensor) -> Tensor:
        """Residuals L⁻¹(z − m) (N, K, d)."""
        return torch.addmm(-shift, z, inverse.flatten(0, 1).T).unflatten(1, self.mean.shape)


def _sums(x: Tensor) -> Tensor:
    return x @ x.new_ones(x.shape[2])  # faster than a sum along a short axis


def learned_prior(model: Any) -> MixturePrior | None:
    """The learned prior of a model, or None where its codes are standard normal.

    Example:
        >>> learned_prior(nn.Identity()) is None
        True
    """
    prior = getattr(model, "prior", None)
    return prior if isinstance(prior, MixturePrior) else None
