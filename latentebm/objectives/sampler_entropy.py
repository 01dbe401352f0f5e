r"""Entropies of a learned sampler G: what keeps it from collapsing onto the lowest energy.

The sampler minimises :math:`E_G[E(x)] - H(G)`, whose least value is −log Z, at the energy's own distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor
from torch.func import vjp, vmap
from torch.nn import functional as F

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.rng import normal

__all__ = ["Bound", "SamplerScore", "entropy_surrogate", "mutual_information", "sampler_score", "scale_entropy"]

FARTHEST = 3.0  # bound of a mean noise's root mean square
Bound = Literal["donsker-varadhan", "jensen-shannon"]


def scale_entropy(scales: Tensor) -> Tensor:
    r"""Entropy of independent Gaussian activations from their scales, in nats.

    .. math:: H \approx \sum_i \tfrac12 \log(2 \pi e\, s_i^2)

    The scales, (S,), are standard deviations, such as those of batch normalisation. Exact for a Gaussian output of
    independent coordinates; for inner layers, a measure of how far activations spread.

    References:
        Deep directed generative models with energy-based probability estimation (Kim and Bengio, 2016),
        https://arxiv.org/abs/1606.03439

    Example:
        >>> round(scale_entropy(torch.ones(2)).item(), 4)
        2.8379
    """
    if not scales.numel():
        raise fail("scales", "at least one", "an empty tensor", "give the sampler batch_norm=True")
    return 0.5 * (math.log(2 * math.pi * math.e) + scales.square().clamp_min(1e-12).log()).sum()


def mutual_information(joint: Tensor, independent: Tensor, *, bound: Bound = "donsker-varadhan") -> Tensor:
    r"""Bound of a sampler's mutual information between code and point, from a critic T's values, in nats.

    .. math:: I \ge E_{p(x,z)}[T] - \log E_{p(x)p(z)}[e^T]
              \quad\text{or}\quad -E_{p(x,z)}[\mathrm{sp}(-T)] - E_{p(x)p(z)}[\mathrm{sp}(T)]

    As H(x) = I(x; z) + H(x|z) and the noise's entropy H(x|z) is constant, raising I raises the entropy. The
    Jensen–Shannon bound is one of another divergence: it is steadier, but its gradient is not the entropy's.

    `joint` holds T at pairs (x, z) drawn together, (N,); `independent` at points with the codes of others, (M,).

    References:
        Maximum entropy generators for energy-based models (Kumar et al., 2019), https://arxiv.org/abs/1901.08508

    Example:
        >>> mutual_information(torch.ones(3), torch.zeros(5))
        tensor(1.)
    """
    check_choice("bound", bound, get_args(Bound))
    if bound == "jensen-shannon":
        return -F.softplus(-joint).mean() - F.softplus(independent).mean()
    return joint.mean() - (torch.logsumexp(independent, 0) - math.log(len(independent)))


class SamplerScore(NamedTuple):
    """Score (N, d) and log-density (N,), in nats, of a sampler's own distribution at points; both without gradient."""

    score: Tensor
    log_density: Tensor


@torch.no_grad()
def sampler_score(
    decode: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, *, noise: float, k: int = 3, generator: torch.Generator
) -> SamplerScore:
    r"""Score and log-density of a noisy sampler's own distribution, by importance draws of the code that made x.

    .. math:: \nabla_x \log q(x) = E_{q(z|x)}\left[\frac{g(z) - x}{\sigma^2}\right]
              \approx \sum_k \bar w_k \frac{g(z_k) - x}{\sigma^2}, \quad z_k \sim \xi(z|x), \quad
              w_k = \frac{q(x|z_k)\, p(z_k)}{\xi(z_k|x)}, \quad \log q(x) \approx \log \frac1K \sum_k w_k

    The proposal is the posterior of the sampler linearised at the code z₀ that made the point, with the Jacobian J:

    .. math:: \xi = N(m, A^{-1}), \quad A = I + J^\top J / \sigma^2, \quad
              m = z_0 + A^{-1} \big(J^\top (x - g(z_0)) / \sigma^2 - z_0\big)

    Both results are exact for linear samplers. With a proposal about z₀ itself the entropy would come out too weak.
    `decode` is g, from codes (N, l) to points (N, d), row by row, without batch statistics; x are points g(z₀) + σε, z
    the codes z₀ that made them, and `k` counts pairs of opposite importance draws per point.

    References:
        Unbiased implicit variational inference (Titsias and Ruiz, 2019), https://arxiv.org/abs/1808.02078

    Example:
        >>> g, one = torch.Generator().manual_seed(0), torch.ones(1, 1)
        >>> found = sampler_score(lambda z: z, one, 0 * one, noise=1.0, generator=g)
        >>> round(found.score.item(), 4), round(found.log_density.item(), 4)  # q is N(0, 2)
        (-0.5, -1.5155)
    """
    check_number("noise", noise, low=0, open_low=True, fix="give the sampler noise: without it there is no density")
    check_int("k", k)
    mean, factor = _linearised(decode, x, z, noise)
    step = normal((k, *z.shape), generator, z)
    step = torch.cat([step, -step])
    codes = mean + torch.linalg.solve_triangular(factor.mT, step.permute(1, 2, 0), upper=True).permute(2, 0, 1)
    residual = (decode(codes.flatten(0, 1)).unflatten(0, (2 * k, len(z))) - x) / noise
    log_weight = 0.5 * (step.square().sum(-1) - residual.square().sum(-1) - codes.square().sum(-1))
    constant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + x.shape[1] * math.log(noise * math.sqrt(2 * math.pi))
    mean_noise = (torch.softmax(log_weight, 0)[..., None] * residual).sum(0)
    # A conditional mean of noise that is N(0, I): one far out says that every draw missed, and must not steer a fit.
    length = mean_noise.norm(dim=1, keepdim=True)
    score = mean_noise * (FARTHEST * x.shape[1] ** 0.5 / length.clamp_min(1e-12)).clamp_max(1) / noise
    return SamplerScore(score, log_weight.logsumexp(0) - math.log(2 * k) - constant)


def _linearised(decode: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Mean (N, l) and Cholesky factor (N, l, l) of the precision of the linearised posterior."""
    points, pull = cast(Any, vjp(decode, z))
    (rows,) = vmap(lambda e: pull(e.expand_as(x)))(torch.eye(x.shape[1]).to(x))
    # In double precision: where a sampler splits two modes, the squares of its slopes drown the prior's 1.
    jacobian = rows.transpose(0, 1).double() / noise
    precision = torch.eye(z.shape[1]).to(jacobian) + jacobian.mT @ jacobian
    # A diverged sampler gives NaN here, which the fit reports; the error would only name a matrix.
    factor = torch.linalg.cholesky_ex(precision).L
    slope = jacobian.mT @ ((x - points) / noise)[..., None].double() - z[..., None].double()
    return z + torch.cholesky_solve(slope, factor)[..., 0].to(z), factor.to(z)


def entropy_surrogate(x: Tensor, score: Tensor) -> Tensor:
    r"""A scalar whose gradient in a sampler's parameters is that of its entropy; its value means nothing.

    .. math:: \nabla_\phi H = -E\left[\nabla_x \log q(x)^\top \frac{\partial x}{\partial \phi}\right]

    The points (N, d) carry their gradient in the sampler; the score (N, d) of its distribution at them is taken as
    constant. Its mean under q is zero, so only the points' movement counts.

    Example:
        >>> scale = torch.tensor(2.0, requires_grad=True)
        >>> x = scale * torch.tensor([[1.0], [-1.0]])  # of N(0, 2²): H = log scale + …, whose slope is 1/2
        >>> entropy_surrogate(x, -x / 4).backward(); scale.grad
        tensor(0.5000)
    """
    return -(score.detach() * x).sum(-1).mean()
