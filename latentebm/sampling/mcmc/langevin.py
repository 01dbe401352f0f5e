"""Langevin chains from the base distribution to the tilted one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from latentebm.checks import check_int, check_number, check_rng
from latentebm.progress import Track, silent
from latentebm.sampling.compiled.rounding import check_precision
from latentebm.sampling.diagnostics import max_rhat, stuck
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.mcmc.state import ChainState, chain_starts, start_on
from latentebm.sampling.mcmc.tuning import tune_step
from latentebm.sampling.target import Target

__all__ = ["Langevin"]

PILOTS = 1_024  # chains that tune the step: enough for an acceptance rate within 2 %


@dataclass(frozen=True, kw_only=True)
class Langevin:
    r"""One Langevin chain per draw, each started at a base draw of its own; the draws are the chains' last positions.

    .. math:: u_0 \sim p_0, \quad u_{t+1} \sim K(u_t, \cdot) \text{ for } U(u) = E(u) - \log p_0(u)

    The default kernel, MALA, is exact whatever its step; that of any Metropolis-adjusted kernel is only a first guess,
    fitted to an acceptance of `target` on pilot chains of `warm_up` steps, unless there are none. With `starts` above 1
    each chain starts at one of as many base draws, by their weights. The paths of `trace` chains are kept, the second
    half of which gives ``rhat``. The rest is as for :func:`run_chains`.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
        >>> draws = Langevin(n_steps=50).draw(tilt, 2000, generator=torch.Generator().manual_seed(0))
        >>> abs(draws.x.mean().item() + 1) < 0.1
        True
    """

    kernel: Kernel = field(default_factory=lambda: MALA(0.3))
    n_steps: int = 200
    warm_up: int = 50
    target: float = 0.574
    starts: int = 1
    trace: int = 64
    thin: int = 1
    chunk: int | None = None
    compile: bool | None = None
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check_number("target", self.target, low=0.01, high=0.99)
        check_precision(self.precision)
        for name, low in (("n_steps", 1), ("warm_up", 0), ("starts", 1), ("trace", 0), ("thin", 1), ("chunk", 1)):
            if name != "chunk" or self.chunk is not None:
                check_int(name, getattr(self, name), low=low)

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points by `n` chains; the diagnostics are `ChainInfo` and the largest ``rhat`` over coordinates.

        Chains that hardly move are not ``reliable``, and ``why`` says so.

        Raises:
            ValueError: a chain finds no finite start, or the energy is piecewise constant under an unadjusted kernel.
            FloatingPointError: an energy of −∞.
        """
        check_int("n", n)
        kernel, rng = self.kernel, check_rng(generator)
        how: dict[str, Any] = {"compile": self.compile, "precision": self.precision}
        if kernel.adjusted and kernel.stepped and self.warm_up:
            pilots = self._start(tilt, min(n, PILOTS), kernel, rng)
            fit: dict[str, Any] = {"target": self.target, "generator": rng, **how}
            kernel, _ = tune_step(tilt, pilots, kernel, self.warm_up, **fit)
        start = self._start(tilt, n, kernel, rng)
        kept: dict[str, Any] = {"trace": min(self.trace, n), "thin": self.thin, "chunk": self.chunk, "track": track}
        run = run_chains(tilt, start, kernel, self.n_steps, generator=rng, **how, **kept)
        report = {"sampler": type(kernel).__name__.lower(), **run.info._asdict()}
        report["rhat"] = max_rhat(run.trace[len(run.trace) // 2 :])
        report |= stuck(run.info.acceptance, run.trace[len(run.trace) // 2 :])
        return gather_draws(tilt, run.state.position, report, trace=run.trace)

    def _start(self, tilt: Target, n: int, kernel: Kernel, generator: torch.Generator) -> ChainState:
        base = chain_starts(tilt, n, self.starts, generator=generator)
        return start_on(tilt, base, kernel, generator=generator, chunk=self.chunk)
