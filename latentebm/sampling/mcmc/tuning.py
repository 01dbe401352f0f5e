"""Step sizes fitted to a target acceptance."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, fail
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel
from latentebm.sampling.mcmc.moves import fastest
from latentebm.sampling.mcmc.state import ChainState, start_chains
from latentebm.sampling.target import Potential

__all__ = ["tune_step"]


def tune_step(
    potential: Potential,
    state: ChainState | Tensor,
    kernel: Kernel,
    n_steps: int,
    *,
    generator: torch.Generator,
    target: float = 0.574,
    compile: bool | None = None,  # noqa: A002 - the name torch users know
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
) -> tuple[Kernel, ChainState]:
    r"""Fit the step size of a Metropolis-adjusted kernel to a target acceptance, while the chains run.

    .. math:: \log \eta_{t+1} = \log \eta_t + (t + 1)^{-0.6} (\bar\alpha_t - \alpha^*)

    with :math:`\bar\alpha_t` the mean acceptance over all chains. The kernel returned, beside the state reached, has
    the average of the path's later half; the step of the kernel given is the first guess.

    Arguments as for `run_chains`, and:
        target: wanted mean acceptance probability; 0.574 is optimal in high dimension, 0.234 for a random walk.
        compile: True compiles no more than None here.

    References:
        A tutorial on adaptive MCMC (Andrieu and Thoms, 2008); Optimal scaling of discrete approximations to Langevin
        diffusions (Roberts and Rosenthal, 1998)

    Example:
        >>> from latentebm.sampling.mcmc.kernels import MALA
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(1000, 1, generator=g)
        >>> kernel, _ = tune_step(lambda x: x.square().sum(1) / 2, x, MALA(0.01), 200, generator=g)
        >>> run = run_chains(lambda x: x.square().sum(1) / 2, x, kernel, 50, generator=g)
        >>> abs(run.info.acceptance - 0.574) < 0.05
        True
    """
    if not check_kernel(kernel).adjusted:
        raise fail("kernel", "a Metropolis-adjusted one", type(kernel).__name__, "use MALA")
    check_int("n_steps", n_steps)
    check_number("target", target, low=0.01, high=0.99)
    potential = kernel.sees(potential, state if isinstance(state, Tensor) else state.position)
    state = start_chains(potential, state) if isinstance(state, Tensor) else state
    potential = fastest(potential, state.position, None if compile else compile, precision).potential
    drift, scale = kernel.scales(0)
    log_step, later = math.log(drift or scale), []
    for t in range(n_steps):
        now = kernel.with_step(math.exp(log_step))
        run = run_chains(potential, state, now, 1, generator=generator, compile=False)
        state = run.state
        log_step += (t + 1) ** -0.6 * (run.info.acceptance - target)
        if t >= n_steps // 2:
            later.append(log_step)
    return kernel.with_step(math.exp(sum(later) / len(later))), state
