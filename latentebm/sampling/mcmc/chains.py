"""Many Langevin chains in one tensor, advanced by blocks of steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng
from latentebm.progress import Track, silent
from latentebm.rng import normal, uniform
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel, check_preconditioner
from latentebm.sampling.mcmc.moves import BLOCK, MoveBlock, clip_gradient, fastest, move_block
from latentebm.sampling.mcmc.state import ChainInfo, ChainRun, ChainState, chain_chunk, start_chains
from latentebm.sampling.target import Potential

__all__ = ["run_chains"]

Moved = tuple[Tensor, Tensor]  # counts, path


@torch.no_grad()
def run_chains(
    potential: Potential,
    state: ChainState | Tensor,
    kernel: Kernel,
    n_steps: int,
    *,
    generator: torch.Generator,
    trace: int = 0,
    thin: int = 1,
    chunk: int | None = None,
    compile: bool | None = None,  # noqa: A002 - the name torch users know
    partial: bool = False,
    track: Track = silent,
) -> ChainRun:
    r"""Advance every chain `n_steps` by the kernel.

    Only gradients in the position are formed, never in parameters. A proposal whose energy or gradient is not finite
    is taken back and counted. On Ctrl-C, if `partial`, the steps done so far by all chains are returned.

    Arguments:
        potential: a target, or a callable from points (N, *event) to (N,), in nats; a target without
            ``value_and_grad`` is differentiated automatically.
        state: starting points (N, *event), or the state of an earlier run, whose step count goes on.
        trace: how many chains, from the first, have their path kept, every `thin`-th step; at most `chunk`.
        chunk: chains evaluated at once, which bounds the memory; None chooses by the device.
        compile: None runs a perceptron energy (`FusedMLP`, `EnergyNet`, a latent tilt of any strength) as a compiled
            program where it applies: float32 on the CPU, with a C++ compiler at hand; it is built in under a second.
            True also compiles blocks of steps of any other potential with ``torch.compile``, which takes some ten
            seconds once and pays for long runs, and warns where there is no compiler. False runs the plain steps.

    Raises:
        ValueError: a start is not finite, or the target's own ``value_and_grad`` gives other values.
        FloatingPointError: an energy of −∞, which would hold its chain forever.

    Example:
        >>> from latentebm.sampling.mcmc.kernels import MALA
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 1, generator=g)
        >>> run = run_chains(lambda x: 2 * (x - 1).square().sum(1), x, MALA(0.2), 50, generator=g)
        >>> abs(run.state.position.mean().item() - 1) < 0.05, abs(run.state.position.std().item() - 0.5) < 0.05
        (True, True)
    """
    check_kernel(kernel)
    check_rng(generator)
    for name, value, low in (("n_steps", n_steps, 1), ("trace", trace, 0), ("thin", thin, 1)):
        check_int(name, value, low=low)
    x, step = (state.position, state.step) if isinstance(state, ChainState) else (state, 0)
    potential = kernel.sees(potential, x)
    if not isinstance(state, ChainState) or state.alone != kernel.alone:
        state = start_chains(potential, x, chunk=chunk)._replace(step=step, alone=kernel.alone)
    check_preconditioner(kernel, state.position.shape[1:])
    chunk = chain_chunk(chunk, state.position)
    if kernel.clip is not None:
        state = state._replace(grad=clip_gradient(state.grad, kernel.clip)[0])
    n, trace = len(state.position), min(trace, len(state.position), chunk)
    counts = torch.zeros(3, dtype=torch.float64, device=state.position.device)  # read once, at the end
    path = [state.position.new_empty((0, trace, *state.position.shape[1:]))]
    own = kernel.block(generator)
    potential, move = fastest(potential, state.position, compile) if own is None else (potential, own)
    first = state.step
    try:
        for block in track(_blocks(n_steps, state.position[:chunk].numel()), "chains"):
            # Odd blocks are not worth a program of their own.
            plain = own or move_block
            run = _Run(move if block == BLOCK else plain, plain, potential, kernel, generator)
            state, moved = _advance(run, state, block, chunk, trace)
            path += [moved[0][1]] if trace else []
            for counted, _ in moved:
                counts += counted
    except KeyboardInterrupt:
        if not partial:
            raise
    return ChainRun(state, _info(kernel, counts, n, first, state.step), torch.cat(path)[thin - 1 :: thin])


def _blocks(n_steps: int, numel: int) -> list[int]:
    """Steps cut into blocks whose noise is drawn at once; one by one where that noise would be large."""
    block = BLOCK if numel <= 1 << 20 else 1
    return [block] * (n_steps // block) + [1] * (n_steps % block)


class _Run(NamedTuple):
    """What every part of the chains is moved by."""

    move: MoveBlock
    plain: MoveBlock
    potential: Potential
    kernel: Kernel
    generator: torch.Generator


def _advance(run: _Run, state: ChainState, block: int, chunk: int, trace: int) -> tuple[ChainState, list[Moved]]:
    """Move all chains by a block of steps: the new state, so that an interrupt leaves none ahead of the others."""
    n = len(state.position)
    # Room for all chains at once: small tensors kept between large ones that come and go fragment memory.
    after = [torch.empty_like(t) for t in state[:3]]
    moved = []
    for start in range(0, n, chunk):
        # Nor is a last, smaller chunk worth a program of its own.
        whole = start == 0 or start + chunk <= n
        part, own = slice(start, start + chunk), run if whole else run._replace(move=run.plain)
        moved.append(_advance_part(own, state, part, after, block, 0 if start else trace))
    return ChainState(after[0], after[1], after[2], state.step + block, state.alone), moved


def _advance_part(run: _Run, state: ChainState, part: slice, after: list[Tensor], block: int, trace: int) -> Moved:
    """Move a part of the chains into `after`: its counts, and the path of its first `trace`."""
    move, _, potential, kernel, generator = run
    x = state.position[part]
    noise = normal((block, *x.shape), generator, x)
    tests = uniform((block, len(x)), generator, x) if kernel.adjusted else None
    scales = [kernel.scales(state.step + k) for k in range(block)]
    settings = (scales, kernel.preconditioner, kernel.clip, trace)
    point, counts, path = move(potential, (x, state.energy[part], state.grad[part]), noise, tests, *settings)
    sunk = torch.isneginf(point[1]).nonzero()
    if len(sunk):
        chain = part.start + int(sunk[0, 0])
        raise FloatingPointError(f"potential: expected finite energies, got -inf at chain {chain}; bound it from below")
    for whole, moved in zip(after, point, strict=True):
        whole[part] = moved
    return counts, path


def _info(kernel: Kernel, counts: Tensor, chains: int, first: int, end: int) -> ChainInfo:
    accepted, clipped, reverted = counts.tolist()
    moves = max(1, chains * (end - first))
    drift, noise = kernel.scales(max(0, end - 1))
    acceptance, step = accepted / moves if kernel.adjusted else 1.0, drift if kernel.gradient else noise
    return ChainInfo(acceptance, step, int(reverted), clipped / moves, end - first)
