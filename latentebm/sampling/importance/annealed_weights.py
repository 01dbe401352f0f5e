"""log Z between two bounds, by annealed importance sampling from both ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_points, check_rng, fail
from latentebm.sampling.importance.smc import TemperedSMC
from latentebm.sampling.importance.weights import WeightSums, check_weights
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.target import Target
from latentebm.sampling.tempered import Mover, base_energy, check_ladder

__all__ = ["Bracket", "annealed_log_weight", "bracket_log_z"]

REFINED = 8  # rungs between two temperatures of a pilot
WIDTH = 3.0  # standard errors by which each end is moved outward
WANTED = 0.574  # acceptance


class Bracket(NamedTuple):
    """Bounds of log Z, nats: the estimates of both directions, each moved outward by three standard errors.

    Attributes:
        lower: from the base distribution to the tilt, less three standard errors.
        upper: from the tilt back to the base distribution, plus three standard errors.
        forward: the first estimate, whose expectation is at most log Z.
        backward: the second estimate, whose expectation is at least log Z where the draws are exact.
    """

    lower: float
    upper: float
    forward: float
    backward: float


@torch.no_grad()
def bracket_log_z(
    tilt: Target,
    *,
    chains: int = 1_000,
    kernel: Kernel | None = None,
    ladder: Sequence[float] | None = None,
    draws: Tensor | None = None,
    n_steps: int = 1,
    generator: torch.Generator,
) -> Bracket:
    r"""Bracket log Z by annealed importance sampling, forward from base draws and backward from draws of the tilt.

    .. math::
        E\Big[\log \tfrac1N \textstyle\sum_i w_i\Big] \le \log Z
        \le E\Big[-\log \tfrac1N \textstyle\sum_i 1 / w'_i\Big], \quad
        \log w = -\sum_k (\beta_{k+1} - \beta_k) E(u_k)

    Arguments:
        tilt: a target.
        chains: from the base distribution.
        kernel: Metropolis-adjusted moves, their step tuned as they go; None is MALA.
        ladder: inverse temperatures that rise from 0 to 1; None takes those of `TemperedSMC`, eight times as fine.
        draws: base-space points (N, D) of the tilted distribution, where the way back starts; None takes those of
            `TemperedSMC`, with which the upper end is as exact as they are.
        n_steps: moves at each temperature.
        generator: source of all chance.

    Raises:
        ValueError: an argument lies outside its range, the ladder does not rise, or the kernel is unadjusted.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008; Sandwiching the marginal
        likelihood using bidirectional Monte Carlo (Grosse, Ghahramani and Adams, 2015),
        https://arxiv.org/abs/1511.02543

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0), lambda e: 3 * e)
        >>> found = bracket_log_z(tilt, generator=torch.Generator().manual_seed(0))  # log Z = 4.5
        >>> found.lower < 4.5 < found.upper, found.upper - found.lower < 0.3
        (True, True)
    """
    check_int("chains", chains)
    check_int("n_steps", n_steps)
    kernel = MALA(0.3) if kernel is None else check_kernel(kernel)
    if not kernel.adjusted:
        raise fail("kernel", "a Metropolis-adjusted one", type(kernel).__name__, "use MALA or PCN")
    rungs = None if ladder is None else check_ladder(ladder)
    if rungs is None or draws is None:
        pilot = TemperedSMC(particles=chains, kernel=kernel).draw(tilt, chains, generator=check_rng(generator))
        rungs = _refined(check_ladder(pilot.diagnostics["temperatures"])) if rungs is None else rungs
        draws = pilot.latent if draws is None else draws
    base = tilt.sample_base(chains, generator=check_rng(generator))
    ways: dict[str, Any] = {"kernel": kernel, "n_steps": n_steps, "generator": generator}
    forward = _log_mean(annealed_log_weight(tilt, base, rungs, **ways))
    backward = _log_mean(-annealed_log_weight(tilt, check_points("draws", draws), rungs[::-1], **ways))
    return Bracket(forward[0] - WIDTH * forward[1], -backward[0] + WIDTH * backward[1], forward[0], -backward[0])


@torch.no_grad()
def annealed_log_weight(
    tilt: Target, u: Tensor, ladder: Sequence[float], *, kernel: Kernel, n_steps: int = 1, generator: torch.Generator
) -> Tensor:
    """Log-weights (N,) in float64 of chains from points (N, D) along inverse temperatures, towards 1 or back to 0."""
    mover = Mover(tilt, kernel, WANTED, generator)
    energy, total = base_energy(tilt, u), torch.zeros(len(u), dtype=torch.float64, device=u.device)
    last = len(ladder) - 1
    for k in range(last):
        gap, after = abs(ladder[k + 1] - ladder[k]), ladder[k + 1]
        total -= gap * energy.double()
        if k + 1 == last:
            break  # nothing is asked of where they end
        alive = energy.isfinite()  # a chain of weight zero has nowhere to go; it keeps its weight
        state = mover.start(torch.where(alive[:, None], u.flatten(1), 0.0).view_as(u) if not alive.all() else u, after)
        for _ in range(n_steps):
            state = mover.sweep(state, after)
        u, energy = state.position, torch.where(alive, mover.energy(state, after), energy)
    return total


def _log_mean(log_weight: Tensor) -> tuple[float, float]:
    sums = WeightSums(len(log_weight))
    sums.add(log_weight)
    check_weights(sums)
    return sums.log_z, sums.log_z_se


def _refined(ladder: tuple[float, ...]) -> tuple[float, ...]:
    fine = [a + (b - a) * k / REFINED for a, b in itertools.pairwise(ladder) for k in range(REFINED)]
    return (*fine, ladder[-1])
