r"""Score matching: losses of an energy that never meet its normalising constant.

The score is :math:`-\nabla E`. Losses (…) are means over points (…, N, d); leading dimensions are ensemble members. An
energy maps them to (…, N), in nats, each by its point alone; one that does not depend on its point raises a ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.rng import normal

__all__ = ["Energy", "Projection", "ScaledEnergy", "check_scales", "denoising_score_matching"]
__all__ += ["exact_score_matching", "multiscale_score_matching", "sliced_score_matching"]

Projection = Literal["rademacher", "gaussian"]
Energy = Callable[[Tensor], Tensor]
ScaledEnergy = Callable[[Tensor, Tensor], Tensor]


def exact_score_matching(energy: Energy, x: Tensor) -> Tensor:
    r"""Hyvärinen's loss, its trace by one Hessian product per coordinate.

    .. math:: \mathrm{mean}_i \left[\tfrac12 |\nabla E(x_i)|^2 - \mathrm{tr}\, \nabla^2 E(x_i)\right]

    References:
        Estimation of non-normalized statistical models by score matching (Hyvärinen, 2005),
        https://jmlr.org/papers/v6/hyvarinen05a.html

    Example:
        >>> exact_score_matching(lambda x: x.square().sum(-1) / 2, torch.ones(4, 3))
        tensor(-1.5000)
    """
    slope, hessian = _curvature(energy, x)
    basis = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    trace = vmap(lambda e: (hessian(e.expand_as(x)) * e).sum(-1))(basis).sum(0)
    return (0.5 * slope.square().sum(-1) - trace).mean(-1)


def sliced_score_matching(
    energy: Energy,
    x: Tensor,
    *,
    generator: torch.Generator,
    projection: Projection = "rademacher",
    projections: int = 1,
    reduced: bool = True,
) -> Tensor:
    r"""Score matching along random directions: one Hessian product each, whatever the dimension.

    .. math:: \mathrm{mean}_{i,v} \left[\tfrac12 (v^\top \nabla E(x_i))^2 - v^\top \nabla^2 E(x_i)\, v\right]

    With E[vv'] = I its mean is the exact loss. The variance-reduced form puts the known mean of the first term,
    :math:`\tfrac12 |\nabla E|^2`, in its place. Directions that are ``rademacher`` signs are exact where the Hessian is
    diagonal.

    References:
        Sliced score matching: a scalable approach to density and score estimation (Song et al., 2019),
        https://arxiv.org/abs/1905.07088

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> sliced_score_matching(lambda x: x.square().sum(-1) / 2, torch.ones(4, 3), generator=g)
        tensor(-1.5000)
    """
    check_choice("projection", projection, get_args(Projection))
    check_int("projections", projections)
    slope, hessian = _curvature(energy, x)
    total = x.new_zeros(x.shape[:-2])
    for _ in range(projections):
        v = normal(x.shape, generator, x)
        v = torch.where(v < 0, -torch.ones_like(v), torch.ones_like(v)) if projection == "rademacher" else v
        squares = slope.square().sum(-1) if reduced else (slope * v).sum(-1).square()
        total = total + (0.5 * squares - (v * hessian(v)).sum(-1)).mean(-1)
    return total / projections


def denoising_score_matching(
    energy: Energy, x: Tensor, sigma: float | Tensor, *, generator: torch.Generator, paired: bool = True
) -> Tensor:
    r"""Vincent's loss: the slope at a noisy point is to point back to the clean one. No second derivatives.

    .. math:: \mathrm{mean}_i\, \tfrac12 \left|\nabla E(\tilde x_i) - (\tilde x_i - x_i)/\sigma^2\right|^2,
              \quad \tilde x_i = x_i + \sigma \epsilon_i

    Its mean is the exact loss on data smoothed by :math:`\sigma`, plus :math:`d/2\sigma^2`: the energy learned is that
    of the smoothed density. At twice the cost, pairs :math:`\pm\epsilon` cancel what grows like :math:`1/\sigma` in the
    gradient's variance, so that small scales can be learned too. The noise level, in the data's units, is a number or a
    tensor that broadcasts to x.

    References:
        A connection between score matching and denoising autoencoders (Vincent, 2011),
        https://doi.org/10.1162/NECO_a_00142

    Example:
        >>> g, x = torch.Generator().manual_seed(0), torch.zeros(100_000, 1)
        >>> loss = denoising_score_matching(lambda x: 2 * x.square().sum(-1), x, 0.5, generator=g)
        >>> round(loss.item(), 4)  # N(0, 1/4) is the smoothed data: the slope is the target
        0.0
    """
    scale = check_scales(torch.as_tensor(sigma, dtype=x.dtype, device=x.device))
    noise = normal(x.shape, generator, x)
    slope = grad(lambda y: energy(y).sum())
    signs = (1, -1) if paired else (1,)
    losses = [(_dependent(slope(x + s * scale * noise)) - s * noise / scale).square().sum(-1) for s in signs]
    return 0.5 * torch.stack(losses).mean(0).mean(-1)


def multiscale_score_matching(
    energy: ScaledEnergy, x: Tensor, sigma: Tensor, *, generator: torch.Generator, scale_weight: float = 0.1
) -> Tensor:
    r"""Denoising at many noise levels by one energy of the point and the level, along the level too.

    .. math:: \mathrm{mean}_i \left[ \tfrac12 |\sigma_i \nabla_x E(\tilde x_i, \sigma_i) - \epsilon_i|^2
              + \tfrac{w}{2} \big(\partial_{\log \sigma} E(\tilde x_i, \sigma_i) + |\epsilon_i|^2 - d\big)^2 \right]

    The energy maps points (N, d) and levels (N,), in the data's units, to (N,). The first term, each level weighted by
    its square, leaves the relative mass of separate modes open. The second, of weight w = `scale_weight`, matches the
    change of the log-density with the level, whose conditional mean is :math:`E[|\epsilon|^2 - d \mid \tilde x]`: it
    ties the modes together through the levels at which they overlap.

    References:
        For the second term, Density ratio estimation via infinitesimal classification (Choi et al., 2022),
        https://arxiv.org/abs/2111.11010

    Example:
        >>> g, x = torch.Generator().manual_seed(0), torch.zeros(1000, 1)
        >>> def exact(x, s):  # the smoothed point mass, with its normalising constant
        ...     return x.square().sum(-1) / (2 * s**2) + s.log()
        >>> round(multiscale_score_matching(exact, x, torch.full((1000,), 0.7), generator=g).item(), 4)
        0.0
    """
    check_number("scale_weight", scale_weight, low=0)
    check_scales(sigma)
    noise = normal(x.shape, generator, x)
    signed = torch.cat([noise, -noise])
    levels = sigma.repeat(2)
    noisy = x.repeat(2, 1) + levels[:, None] * signed
    slope, rate = grad(lambda y, log_s: energy(y, log_s.exp()).sum(), argnums=(0, 1))(noisy, levels.log())
    loss = (levels[:, None] * _dependent(slope) - signed).square().sum(-1)
    if scale_weight:
        loss = loss + scale_weight * (rate + signed.square().sum(-1) - x.shape[-1]).square()
    return 0.5 * loss.mean()


def check_scales(sigma: Tensor, *, sorted_down: bool = False) -> Tensor:
    """Return noise levels if all are positive and finite, and with `sorted_down` fall from first to last."""
    if not sigma.numel() or not bool(((sigma > 0) & (sigma < torch.inf)).all()):
        got = "no level" if not sigma.numel() else f"{sigma.min().item():g} … {sigma.max().item():g}"
        raise fail("sigma", "positive finite noise levels", got, "pass for example sigma=0.1")
    if sorted_down and not bool((sigma.diff() < 0).all()):
        raise fail("sigma", "levels that fall from first to last", sigma.tolist(), "sort them, largest first")
    return sigma


def _curvature(energy: Energy, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The slope, and the product of each point's Hessian, which is symmetric, with a direction."""
    score = grad(lambda y: energy(y).sum())
    slope, pull = cast(Any, vjp(score, x))
    return _dependent(slope), lambda v: pull(v)[0]


def _dependent(slope: Tensor) -> Tensor:
    """The slope, unless it is zero without any parameter in it, so that no fit could ever change it."""
    if torch.is_grad_enabled() and not slope.requires_grad and not bool(slope.any()):
        raise fail("energy", "one that depends on x", "a zero score at every point", "compute it from its argument")
    return slope
