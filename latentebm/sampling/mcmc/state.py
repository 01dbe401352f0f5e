"""Where chains are and how they went, and a finite start for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng, fail
from latentebm.sampling.draws import Target, tilt_energy
from latentebm.sampling.mcmc.moves import Potential, all_finite, value_and_grad

__all__ = ["CHUNK", "ChainInfo", "ChainRun", "ChainState", "start_at_base", "start_chains"]

REDRAWS = 100
CHUNK = 4_096  # chains evaluated at once


class ChainState(NamedTuple):
    """Where the chains are, (N, *event), with potential (N,), drift gradient (N, *event) and steps done so far."""

    position: Tensor
    energy: Tensor
    grad: Tensor
    step: int


class ChainInfo(NamedTuple):
    """How the chains went.

    Attributes:
        acceptance: mean Metropolis acceptance probability; 1 for unadjusted kernels.
        step_size: drift scale of the last step; of a random walk, which has no drift, the noise scale.
        reverted: proposals of non-finite energy or gradient, taken back.
        clipped: share of gradients that met the kernel's bound.
        steps: steps done.
    """

    acceptance: float
    step_size: float
    reverted: int
    clipped: float
    steps: int


class ChainRun(NamedTuple):
    """The final state, how it went, and the kept path of the first chains, (draws, chains, *event)."""

    state: ChainState
    info: ChainInfo
    trace: Tensor


def start_chains(
    potential: Potential, position: Tensor, redraw: Callable[[int], Tensor] | None = None, *, chunk: int = CHUNK
) -> ChainState:
    """Evaluate the potential at the start; chains of non-finite energy are redrawn up to 100 times.

    Arguments:
        potential: maps (N, *event) to (N,), in nats.
        position: starting points, (N, *event), floating.
        redraw: gives k fresh starting points, (k, *event), or none.
        chunk: chains evaluated at once.

    Raises:
        ValueError: the positions are not floating, the potential's shape is not (N,), or a chain finds no finite start.

    Example:
        >>> start_chains(lambda x: x.square().sum(1) / 2, torch.ones(2, 3)).energy
        tensor([1.5000, 1.5000])
    """
    if not isinstance(position, Tensor):
        raise fail("position", "a tensor or a ChainState", type(position).__name__, "convert it with torch.as_tensor")
    if not position.is_floating_point():
        raise fail("position", "a floating tensor", str(position.dtype), "convert it with .float()")
    if position.ndim == 0 or len(position) == 0:
        raise fail("position", "shape (N, …) with N ≥ 1", tuple(position.shape), "start at least one chain")
    check_int("chunk", chunk)
    position = position.detach().clone()
    parts = [_finite(potential, part, redraw) for part in position.split(chunk)]
    energy, grad = (torch.cat(both) for both in zip(*parts, strict=True))
    bad = (~all_finite(energy, grad)).nonzero()[:, 0]
    if len(bad):
        chain = int(bad[0])
        raise fail(
            "start",
            "a finite potential and gradient",
            f"{energy[chain].item()} at chain {chain}" + (f" after {REDRAWS} redraws" if redraw else ""),
            "start the chains where the density is positive",
        )
    return ChainState(position, energy, grad, 0)


def start_at_base(tilt: Target, n: int, *, generator: torch.Generator, chunk: int = CHUNK) -> ChainState:
    """Start `n` chains over a tilt's potential at base draws, those of non-finite energy drawn anew up to 100 times.

    Arguments:
        tilt: the target.
        n: chains.
        generator: source of the draws.
        chunk: chains evaluated at once.

    Raises:
        ValueError: the energies are not one floating number a point, or a chain finds no finite start.

    Example:
        >>> from types import SimpleNamespace
        >>> tilt = SimpleNamespace(sample_base=lambda n, generator: torch.ones(n, 2), energy=lambda u: u.sum(1))
        >>> tilt.potential = lambda u: u.sum(1) + u.square().sum(1) / 2
        >>> start_at_base(tilt, 2, generator=torch.Generator()).energy
        tensor([3., 3.])
    """

    def base(k: int) -> Tensor:
        return tilt.sample_base(k, generator=generator)

    check_rng(generator)
    first = base(n)
    with torch.no_grad():
        tilt_energy(tilt, first[:2])  # its shape: a potential would spread one energy over all chains
    return start_chains(tilt.potential, first, base, chunk=chunk)


def _finite(potential: Potential, x: Tensor, redraw: Callable[[int], Tensor] | None) -> tuple[Tensor, Tensor]:
    """Potential and gradient of a chunk, whose bad rows are redrawn in place.

    The whole chunk is asked about again: a potential may know its rows, by their labels for instance.
    """
    energy, grad = value_and_grad(potential, x)
    for _ in range(REDRAWS if redraw is not None else 0):
        bad = (~all_finite(energy, grad)).nonzero()[:, 0]
        if redraw is None or not len(bad):
            break
        x[bad] = redraw(len(bad)).to(x)
        energy, grad = value_and_grad(potential, x)
    return energy, grad
