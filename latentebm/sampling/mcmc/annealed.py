"""Annealed Langevin: chains that follow a family of potentials from the smoothest to the sharpest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, fail
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import MALA, ULA

__all__ = ["annealed_langevin"]


def annealed_langevin(
    potential: Callable[[Tensor, Tensor], Tensor],
    position: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    n_steps: int = 50,
    step: float = 0.1,
    adjusted: bool = False,
    generator: torch.Generator,
) -> Tensor:
    r"""Run Langevin chains through noise levels that fall, each level's step in proportion to its square.

    .. math:: x' = x - \eta_i \nabla_x U(x, \sigma_i) + \sqrt{2 \eta_i}\, \xi, \quad \eta_i = s\, \sigma_i^2

    At the large levels the modes overlap and the chains cross between them; the small ones put the detail in.

    The potential maps points (N, *event) and levels (N,) to (N,), in nats; the positions (N, *event) spread about as
    far as the first of the levels `sigmas`, (L,), and their last places are returned. Each level takes `n_steps` of
    step size s; unadjusted ones are stable below 2, and `adjusted` ones leave no bias of the step size.

    References:
        Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
        https://arxiv.org/abs/1907.05600

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> smoothed = lambda x, s: (x - 1).square().sum(1) / (2 * (0.04 + s**2))
        >>> x = annealed_langevin(smoothed, 2 * torch.randn(2000, 1, generator=g), [2.0, 1.0, 0.5, 0.2], generator=g)
        >>> abs(x.mean().item() - 1) < 0.05
        True
    """
    if not isinstance(position, Tensor):
        raise fail("position", "a tensor", type(position).__name__, "convert it with torch.as_tensor")
    check_int("n_steps", n_steps)
    check_number("step", step, low=0, open_low=True)
    sigmas = torch.as_tensor(sigmas)
    if sigmas.ndim != 1 or not len(sigmas) or not bool((sigmas > 0).all() and (sigmas.diff() < 0).all()):
        raise fail("sigmas", "positive levels, each below the one before", sigmas.tolist(), "sort them, largest first")
    make = MALA if adjusted else ULA
    for sigma in sigmas:
        level = sigma.to(position)

        def at_level(x: Tensor, level: Tensor = level) -> Tensor:
            return potential(x, level.expand(len(x)))

        kernel = make(step * float(level) ** 2)
        position = run_chains(at_level, position, kernel, n_steps, generator=generator).state.position
    return position
