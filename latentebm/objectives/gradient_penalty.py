"""The penalty that keeps an energy flat between data and draws."""

from __future__ import annotations

import torch
from torch import Tensor

from latentebm.rng import uniform

__all__ = ["gradient_penalty", "interpolates"]


def gradient_penalty(energy: Tensor, points: Tensor, *, center: float = 0.0) -> Tensor:
    r"""Mean squared distance of the energy's gradient norm from `center`.

    .. math:: \mathrm{mean}_i\, (\|\nabla E(z_i)\| - c)^2

    The energies (…, N) are computed from points (…, N, *event) with ``requires_grad``, such as `interpolates`. A center
    of 0 shrinks the gradient; 1 is the penalty of WGAN-GP.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028

    Example:
        >>> z = torch.randn(5, 2, requires_grad=True)
        >>> gradient_penalty((3 * z).sum(1), z).item()
        18.0
    """
    (grad,) = torch.autograd.grad(energy.sum(), points, create_graph=True)
    grad = grad.flatten(energy.ndim)
    if center == 0.0:
        # |∇E|² itself: the norm's own derivative is undefined where the gradient vanishes.
        return grad.square().sum(-1).mean(-1)
    return (grad.norm(dim=-1) - center).square().mean(-1)


def interpolates(x: Tensor, other: Tensor, *, generator: torch.Generator, lead: int = 1) -> Tensor:
    """Points drawn uniformly on the lines from x, (N, *event), or (M, N, *event) with ``lead=2``, to others.

    Example:
        >>> interpolates(torch.zeros(4, 1), torch.ones(4, 1), generator=torch.Generator()).requires_grad
        True
    """
    share = uniform((*x.shape[:lead], *[1] * (x.ndim - lead)), generator, x)
    return (share * x + (1 - share) * other).requires_grad_()
