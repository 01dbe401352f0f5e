r"""Entropies of a learned sampler: what keeps a generator from collapsing onto the lowest energy.

A generator of an energy minimises :math:`E_G[E(x)] - H(G)`, whose least value is −log Z at the energy's own law.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_choice, check_int, check_number, fail

__all__ = ["BOUNDS", "entropy_surrogate", "mutual_information", "posterior_bound", "sampler_score", "scale_entropy"]

BOUNDS = ("donsker-varadhan", "jensen-shannon")


def scale_entropy(scales: Tensor) -> Tensor:
    r"""Entropy of independent Gaussian activations from their scales, in nats.

    .. math:: H \approx \sum_i \tfrac12 \log(2 \pi e\, s_i^2)

    Exact for a Gaussian output of independent coordinates; in between, a measure of how far the activations spread.

    Arguments:
        scales: standard deviations, (S,), such as the scales of batch normalisation.

    Raises:
        ValueError: there are none.

    References:
        Deep directed generative models with energy-based probability estimation (Kim and Bengio, 2016),
        https://arxiv.org/abs/1606.03439

    Example:
        >>> round(scale_entropy(torch.ones(2)).item(), 4)
        2.8379
    """
    if not scales.numel():
        raise fail("scales", "at least one", "none", "pass a generator with batch_norm=True")
    return 0.5 * (math.log(2 * math.pi * math.e) + scales.square().clamp_min(1e-12).log()).sum()


def mutual_information(joint: Tensor, independent: Tensor, *, bound: str = "donsker-varadhan") -> Tensor:
    r"""Bound of a generator's mutual information between code and point, from a critic T's values, in nats.

    .. math:: I \ge E_{p(x,z)}[T] - \log E_{p(x)p(z)}[e^T]
              \quad\text{or}\quad -E_{p(x,z)}[\mathrm{sp}(-T)] - E_{p(x)p(z)}[\mathrm{sp}(T)]

    As H(x) = I(x; z) + H(x|z) and the noise's entropy H(x|z) is constant, raising I raises the entropy. The
    Jensen–Shannon bound is one of another divergence: it is steadier, but its gradient is not the entropy's.

    Arguments:
        joint: T at pairs (x, z) drawn together, (N,).
        independent: T at points with the codes of others, (M,).
        bound: ``donsker-varadhan`` or ``jensen-shannon``.

    Raises:
        ValueError: unknown bound.

    References:
        Maximum entropy generators for energy-based models (Kumar, Ozair, Goyal, Courville and Bengio, 2019),
        https://arxiv.org/abs/1901.08508

    Example:
        >>> mutual_information(torch.zeros(3), torch.zeros(5))
        tensor(0.)
    """
    check_choice("bound", bound, BOUNDS)
    if bound == "jensen-shannon":
        return -F.softplus(-joint).mean() - F.softplus(independent).mean()
    return joint.mean() - (torch.logsumexp(independent, 0) - math.log(len(independent)))


def sampler_score(
    decode: Callable[[Tensor], Tensor],
    x: Tensor,
    z: Tensor,
    *,
    noise: float,
    spread: Tensor,
    k: int = 50,
    generator: torch.Generator,
) -> Tensor:
    r"""Score of a noisy generator's own law, by importance draws of the code about the one that made the point.

    .. math:: \nabla_x \log q(x) = E_{q(z|x)}\left[\frac{g(z) - x}{\sigma^2}\right]
              \approx \sum_k \bar w_k \frac{g(z_k) - x}{\sigma^2}, \quad z_k \sim N(z_0, s^2),
              \quad w_k = \frac{q(x|z_k)\, p(z_k)}{N(z_k; z_0, s^2)}

    Arguments:
        decode: maps codes (N, l) to points (N, d), without the noise.
        x: points g(z₀) + σε, (N, d).
        z: the codes z₀ that made them, (N, l).
        noise: σ > 0.
        spread: standard deviations s of the proposal, (l,).
        k: importance draws a point.
        generator: source of the draws, on the device of x or the CPU.

    Returns:
        Scores (N, d), without gradient.

    Raises:
        ValueError: the noise is not positive, or `k` is below 1.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230

    Example:
        >>> g, z = torch.Generator().manual_seed(0), torch.zeros(1, 1)
        >>> one = torch.ones(1)
        >>> score = sampler_score(lambda z: z, one[None], z, noise=1.0, spread=one, k=9999, generator=g)
        >>> abs(score.item() + 0.5) < 0.03  # q is N(0, 2)
        True
    """
    check_number("noise", noise, low=0, open_low=True, fix="give the generator noise: without it there is no density")
    check_int("k", k)
    with torch.no_grad():
        step = torch.randn((k, *z.shape), generator=generator, device=generator.device).to(z)
        codes = z + spread * step
        residual = (decode(codes.flatten(0, 1)).unflatten(0, (k, len(z))) - x) / noise
        # Constants of the Gaussians are common to all draws of a point and leave the weights.
        log_weight = 0.5 * (step.square().sum(-1) - residual.square().sum(-1) - codes.square().sum(-1))
        return (torch.softmax(log_weight, 0)[..., None] * residual / noise).sum(0)


def entropy_surrogate(x: Tensor, score: Tensor) -> Tensor:
    r"""A scalar whose gradient in a generator's parameters is that of its entropy; its value means nothing.

    .. math:: \nabla_\phi H = -E\left[\nabla_x \log q(x)^\top \frac{\partial x}{\partial \phi}\right]

    The score of the law itself has mean zero, so only the points' movement counts.

    Arguments:
        x: points (N, d), with gradient in the generator.
        score: the score of the generator's law at them, (N, d), taken as constant.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230

    Example:
        >>> scale = torch.tensor(2.0, requires_grad=True)
        >>> x = scale * torch.tensor([[1.0], [-1.0]])  # of N(0, 2²): H = log scale + …, whose slope is 1/2
        >>> entropy_surrogate(x, -x / 4).backward(); scale.grad
        tensor(0.5000)
    """
    return -(score.detach() * x).sum(-1).mean()


def posterior_bound(
    decode: Callable[[Tensor], Tensor],
    x: Tensor,
    z: Tensor,
    *,
    noise: float,
    spread: Tensor,
    generator: torch.Generator,
) -> Tensor:
    r"""Evidence bound whose maximum over `spread` fits the proposal of :func:`sampler_score`, up to a constant.

    .. math:: E_{z \sim N(z_0, s^2)}\left[\log q(x|z) + \log p(z)\right] + \textstyle\sum_j \log s_j

    Arguments:
        decode: maps codes (N, l) to points (N, d), taken as constant.
        x: points (N, d).
        z: the codes that made them, (N, l).
        noise: σ > 0.
        spread: standard deviations of the proposal, (l,), with gradient.
        generator: source of the draws.

    Raises:
        ValueError: the noise is not positive.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230

    Example:
        >>> g, one = torch.Generator().manual_seed(0), torch.ones(1)
        >>> bound = posterior_bound(lambda z: z, one[None], one[None], noise=1.0, spread=0 * one + 1e-3, generator=g)
        >>> round(bound.item(), 1)
        -7.4
    """
    check_number("noise", noise, low=0, open_low=True, fix="give the generator noise: without it there is no density")
    codes = z + spread * torch.randn(z.shape, generator=generator, device=generator.device).to(z)
    residual = (decode(codes) - x.detach()) / noise
    log_joint = -0.5 * (residual.square().sum(-1) + codes.square().sum(-1))
    return log_joint.mean() + spread.log().sum()
