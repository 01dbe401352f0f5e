"""Langevin chains from the base law to the tilted one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from latentebm.checks import check_int, check_number
from latentebm.progress import Track, silent
from latentebm.sampling.diagnostics import max_rhat
from latentebm.sampling.draws import Draws, Target, check_gradient, gather_draws, tilt_energy
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.mcmc.state import ChainRun, start_at_base
from latentebm.sampling.mcmc.tuning import tune_step

__all__ = ["Langevin"]

PILOTS = 1_024  # chains that tune the step: enough for an acceptance rate within 2 %


@dataclass(frozen=True, kw_only=True)
class Langevin:
    r"""One Langevin chain a draw, each started at a base draw of its own; the draws are the chains' last positions.

    .. math:: u_0 \sim p_0, \quad u_{t+1} \sim K(u_t, \cdot) \text{ for } U(u) = E(u) - \log p_0(u)

    Arguments:
        kernel: any Langevin kernel. The default, MALA, is exact whatever its step; its step is only a first guess.
        n_steps: steps of each chain.
        warm_up: steps in which a Metropolis-adjusted kernel's step is fitted on separate pilot chains; 0 keeps it.
        target: wanted acceptance of that fit.
        trace: chains whose path is kept in ``Draws.trace``, the second half of which gives ``rhat``.
        thin: keep every `thin`-th step of the path.
        chunk: chains at once, which bounds the memory.
        compile: compile the steps, as in :func:`run_chains`.

    Raises:
        ValueError: an argument lies outside its range.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts and Tweedie, 1996)

    Example:
        >>> Langevin(n_steps=50).kernel
        MALA(preconditioner=None, clip=None, step=0.3, temperature=1.0)
    """

    kernel: Kernel = field(default_factory=lambda: MALA(0.3))
    n_steps: int = 200
    warm_up: int = 50
    target: float = 0.574
    trace: int = 64
    thin: int = 1
    chunk: int = 4_096
    compile: bool = False

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check_int("n_steps", self.n_steps)
        check_int("warm_up", self.warm_up, low=0)
        check_number("target", self.target, low=0.01, high=0.99)
        check_int("trace", self.trace, low=0)
        check_int("thin", self.thin)
        check_int("chunk", self.chunk)

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted law, by `n` chains.

        Arguments:
            tilt: the target.
            n: draws, and chains.
            generator: source of the starts and of the noise.
            track: shows progress.

        Returns:
            Draws whose diagnostics hold ``acceptance``, ``step_size``, ``steps``, ``reverted`` (non-finite proposals
            taken back), ``clipped`` and ``rhat`` (the largest rank-normalised split R̂ over coordinates).

        Raises:
            ValueError: `n` is below 1, a chain finds no finite start, or an unadjusted kernel meets an energy of steps.
            FloatingPointError: an energy of −∞.
        """
        check_int("n", n)

        kernel = self.kernel
        if kernel.adjusted and self.warm_up:
            pilots = start_at_base(tilt, min(n, PILOTS), generator=generator)
            kernel, _ = tune_step(tilt.potential, pilots, kernel, self.warm_up, generator=generator, target=self.target)
        start = start_at_base(tilt, n, generator=generator, chunk=self.chunk)
        if not kernel.adjusted:
            check_gradient(tilt, start.position)
        run = run_chains(
            tilt.potential,
            start,
            kernel,
            self.n_steps,
            generator=generator,
            trace=min(self.trace, n),
            thin=self.thin,
            chunk=self.chunk,
            compile=self.compile,
            track=track,
        )
        with torch.no_grad():
            log_weight = torch.cat([-tilt_energy(tilt, u) for u in run.state.position.split(self.chunk)])
        draws = gather_draws(tilt, run.state.position, log_weight, _report(kernel, run))
        draws.trace = run.trace
        return draws


def _report(kernel: Kernel, run: ChainRun) -> dict[str, Any]:
    info = run.info
    later = run.trace[len(run.trace) // 2 :]
    return {
        "sampler": type(kernel).__name__.lower(),
        "steps": info.steps,
        "step_size": info.step_size,
        "acceptance": info.acceptance,
        "reverted": info.reverted,
        "clipped": info.clipped,
        "rhat": max_rhat(later),
    }
