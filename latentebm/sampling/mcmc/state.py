"""Where chains are and how they went, and where they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng, fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, in_chunks
from latentebm.devices import within_memory
from latentebm.rng import uniform
from latentebm.sampling.importance.weights import check_log_weight
from latentebm.sampling.mcmc.kernels import Kernel
from latentebm.sampling.mcmc.moves import all_finite
from latentebm.sampling.target import Potential, Target, check_gradient, check_own_gradient, tilt_energy, value_and_grad

__all__ = ["ChainInfo", "ChainRun", "ChainState", "chain_chunk", "chain_starts", "start_chains", "start_on"]

REDRAWS = 100
AT_ONCE = 4096  # chains whose base draws are weighed together


class ChainState(NamedTuple):
    """Where the chains are, (N, *event), with potential (N,), drift gradient (N, *event) and steps done so far.

    After a kernel over the base distribution, such as PCN, both are of the tilt's energy alone, and `alone` says so.
    """

    position: Tensor
    energy: Tensor
    grad: Tensor
    step: int
    alone: bool = False


class ChainInfo(NamedTuple):
    """How the chains went."""

    acceptance: float  # mean Metropolis acceptance probability; 1 for unadjusted kernels
    step_size: float  # drift scale of the last step; of a random walk, which has no drift, the noise scale
    reverted: int  # proposals of non-finite energy or gradient, taken back
    clipped: float  # share of gradients that met the kernel's bound
    steps: int


class ChainRun(NamedTuple):
    """The final state, how it went, and the kept path of the first chains, (draws, chains, *event)."""

    state: ChainState
    info: ChainInfo
    trace: Tensor


def chain_chunk(chunk: int | None, x: Tensor) -> int:
    """Chains evaluated at once: as asked for, or by the device."""
    return chunk_size(CHAIN_NUMBERS, x.device) if chunk is None else check_int("chunk", chunk)


def start_chains(
    potential: Potential,
    position: Tensor,
    redraw: Callable[[int], Tensor] | None = None,
    *,
    chunk: int | None = None,
) -> ChainState:
    """Evaluate the potential at points (N, *event); chains of non-finite energy are redrawn up to 100 times.

    ``redraw(k)`` gives k fresh starting points; the other arguments and refusals are those of :func:`run_chains`.

    Example:
        >>> start_chains(lambda x: x.square().sum(1) / 2, torch.ones(2, 3)).energy
        tensor([1.5000, 1.5000])
    """
    if not isinstance(position, Tensor):
        raise fail("position", "a tensor or a ChainState", type(position).__name__, "convert it with torch.as_tensor")
    if not position.is_floating_point():
        raise fail("position", "a floating tensor", str(position.dtype), "convert it with .float()")
    if position.dtype.itemsize < 4:  # small steps would round to none
        raise fail(
            "position", "float32 or float64, in which chains step", str(position.dtype), "convert it by .float()"
        )
    if position.ndim < 2 or len(position) == 0:
        raise fail(
            "position", "shape (N, D, …) with N ≥ 1", tuple(position.shape), "start at least one chain of one number"
        )
    position = position.detach().clone()
    size = chain_chunk(chunk, position)
    with within_memory(chunk=min(size, len(position))):
        parts = [_finite(potential, part, redraw) for part in position.split(size)]
    energy, grad = (torch.cat(both) for both in zip(*parts, strict=True))
    if len(bad := _bad(energy, grad)):
        got = f"{energy[bad[0]].item()} at chain {int(bad[0])}" + (f" after {REDRAWS} redraws" if redraw else "")
        raise fail("start", "a finite potential and gradient", got, "start the chains where the density is positive")
    check_own_gradient(potential, position)
    return ChainState(position, energy, grad, 0)


@torch.no_grad()
def chain_starts(tilt: Target, n: int, per_chain: int, *, generator: torch.Generator) -> Tensor:
    r"""Starts (n, D) of chains, resampled from so many base draws per chain by their weights; 1 takes base draws.

    .. math:: u_k \sim p_0, \quad P(u = u_k) \propto e^{-E(u_k)}

    Chains cross from one class to another slowly: those that start at base draws keep the base's shares of the classes
    for long, those that start here have the tilt's from the first step, but for the error of the weights.

    Raises:
        FloatingPointError: an energy of −∞ or NaN.

    References:
        Sampling importance resampling: A noniterative resampling alternative (Rubin, 1987); Resample-move (Gilks and
        Berzuini, 2001)

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
        >>> starts = chain_starts(tilt, 4000, 10, generator=torch.Generator().manual_seed(0))
        >>> round(starts.mean().item(), 1)
        -1.0
    """
    if per_chain == 1:
        return tilt.sample_base(n, generator=generator)
    groups = torch.arange(n).split(AT_ONCE)
    return torch.cat([_resampled(tilt, len(group), per_chain, generator) for group in groups])


def _resampled(tilt: Target, n: int, per_chain: int, generator: torch.Generator) -> Tensor:
    base = tilt.sample_base(n * per_chain, generator=generator)
    energy = in_chunks(lambda part: tilt_energy(tilt, part), base, chunk_size(CHAIN_NUMBERS, base.device))
    check_log_weight(-energy)
    if not bool(energy.isfinite().any()):
        return base[:n]  # whoever starts the chains redraws these, or says that there is no start
    reached = (energy.min() - energy).double().exp().cumsum(0)
    asked = (torch.arange(n) + uniform((1,), generator, torch.empty(0, dtype=torch.float64))).to(reached) / n
    return base[torch.searchsorted(reached, asked * reached[-1], right=True).clamp(max=len(base) - 1)]


def start_on(
    tilt: Target,
    position: Tensor,
    kernel: Kernel | None = None,
    *,
    generator: torch.Generator,
    chunk: int | None = None,
) -> ChainState:
    """Start chains over a tilt at base points (N, D), those of non-finite energy redrawn from its base distribution.

    An energy that is piecewise constant is refused under an unadjusted kernel.
    """
    check_rng(generator)
    with torch.no_grad():
        tilt_energy(tilt, position[:2])  # its shape: a potential would spread one energy over all chains
    state = start_chains(tilt, position, lambda k: tilt.sample_base(k, generator=generator), chunk=chunk)
    if kernel is not None and not kernel.adjusted:
        check_gradient(tilt, state.position)
    return state


def _finite(potential: Potential, x: Tensor, redraw: Callable[[int], Tensor] | None) -> tuple[Tensor, Tensor]:
    """Potential and gradient of a chunk, whose bad rows are redrawn in place.

    The whole chunk is asked about again: a potential may know its rows, by their labels for instance.
    """
    energy, grad = value_and_grad(potential, x)
    for _ in range(REDRAWS):
        if redraw is None or not len(bad := _bad(energy, grad)):
            break
        x[bad] = redraw(len(bad)).to(x)
        energy, grad = value_and_grad(potential, x)
    return energy, grad


def _bad(energy: Tensor, grad: Tensor) -> Tensor:
    return (~all_finite(energy, grad)).nonzero()[:, 0]
