"""Many Langevin chains in one tensor, advanced by blocks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng
from latentebm.devices import within_memory
from latentebm.disk.checkpoint import Checkpoint, fit_checkpoint
from latentebm.progress import Track, silent
from latentebm.rng import normal, on_device, uniform
from latentebm.sampling.compiled.rounding import check_precision
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel, check_preconditioner
from latentebm.sampling.mcmc.moves import Fastest, MoveBlock, clip_gradient, fastest
from latentebm.sampling.mcmc.state import ChainInfo, ChainRun, ChainState, chain_chunk, start_chains
from latentebm.sampling.target import Potential

__all__ = ["run_chains"]

Moved = tuple[Tensor, Tensor]  # counts, path
GPU_NOISE = 1 << 25  # standard normal draws held at once on a GPU


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
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
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
            program where it applies: float32 on the CPU, with a C++ compiler at hand, built in under a second; or on an
            NVIDIA GPU, with two hidden layers, built in seconds for all numbers of chains. True also compiles blocks of
            steps of any other potential: by ``torch.compile`` on the CPU, which takes some ten seconds for each shape,
            and on a GPU by recording them once. It warns where that fails. False runs the plain steps.
        precision: of the operands of a perceptron's matrix products, ``fp32``, ``tf32`` or ``bf16`` with sums in
            float32: faster on a GPU's matrix units, and only imitated elsewhere. The chains then follow the rounded
            energy, under MALA exactly: where it is off by at most δ nats, densities are by a factor of e^{2δ}.

    Raises:
        ValueError: a start is not finite, the target's own ``value_and_grad`` gives other values, or a precision other
            than fp32 for an energy that is no perceptron.
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
    check_precision(precision)
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
    generator = on_device(generator, state.position.device)
    own = kernel.block(generator)
    fast = Fastest(potential, own, own) if own else fastest(potential, state.position, compile, precision)
    walk, first = _Walk(state, trace), state.step
    try:
        blocks = _blocks(n_steps, state.position[:chunk], fast.block)
        with _saving(n_steps, walk, kernel, generator) as saved:
            for block in track(blocks[walk.blocks :], "chains"):
                run = _Run(fast, kernel, generator, block == blocks[0] > 1)
                with within_memory(chunk=min(chunk, n)):
                    walk.add(*_advance(run, walk.state, block, chunk, trace))
                saved.step()
    except KeyboardInterrupt:
        if not partial:
            raise
    state = walk.state
    _check_sunk(state.energy)
    return ChainRun(state, _info(kernel, walk.counts, n, first, state.step), torch.cat(walk.path)[thin - 1 :: thin])


class _Walk:
    """Where the chains are, what was counted on the way, and the path of some."""

    def __init__(self, state: ChainState, trace: int) -> None:
        self.state, self.blocks = state, 0
        # Read once, at the end.
        self.counts = torch.zeros(3, dtype=torch.float64, device=state.position.device)
        self.path = [state.position.new_empty((0, trace, *state.position.shape[1:]))]

    def add(self, state: ChainState, moved: list[Moved]) -> None:
        """Note a block of steps that all chains made."""
        self.state, self.blocks = state, self.blocks + 1
        if self.path[0].shape[1]:
            self.path.append(moved[0][1])
        for counted, _ in moved:
            self.counts += counted

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"blocks": self.blocks, "state": tuple(self.state), "counts": self.counts, "path": torch.cat(self.path)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set it to where an earlier walk was."""
        self.state, self.blocks = ChainState(*state["state"]), state["blocks"]
        self.counts, self.path = state["counts"], [state["path"]]


@contextmanager
def _saving(n_steps: int, walk: _Walk, kernel: Kernel, generator: torch.Generator) -> Iterator[Checkpoint]:
    """The checkpoint of a long walk, gone on from where one is found."""
    if n_steps == 1:  # as pilots make, again and again
        yield Checkpoint(None, Path(), [], "")
        return
    steps = torch.tensor(n_steps)
    with fit_checkpoint("chains", [walk, generator], kernel, lambda: [steps]) as saved:
        saved.restore()
        yield saved


def _blocks(n_steps: int, x: Tensor, block: int) -> list[int]:
    """Steps cut into blocks whose noise is drawn at once; one by one where that noise would be large."""
    if x.is_cuda:
        block = max(1, min(block, GPU_NOISE // x.numel()))
        rest = n_steps % block
        return [block] * (n_steps // block) + ([rest] if rest else [])
    block = block if x.numel() <= 1 << 20 else 1
    return [block] * (n_steps // block) + [1] * (n_steps % block)


class _Run(NamedTuple):
    """What every part of the chains is moved by."""

    fast: Fastest
    kernel: Kernel
    generator: torch.Generator
    whole: bool  # whether this block is of the length that most are of


def _advance(run: _Run, state: ChainState, block: int, chunk: int, trace: int) -> tuple[ChainState, list[Moved]]:
    """Move all chains by a block of steps: the new state, so that an interrupt leaves none ahead of the others."""
    n = len(state.position)
    # Room for all chains at once: small tensors kept between large ones that come and go fragment memory.
    after = [torch.empty_like(t) for t in state[:3]]
    moved = []
    for start in range(0, n, chunk):
        # Odd blocks, and a last, smaller chunk, are not worth a program of their own.
        whole = run.whole and (start == 0 or start + chunk <= n)
        move = run.fast.move if whole else run.fast.odd
        moved.append(_advance_part(run, move, state, slice(start, start + chunk), after, block, 0 if start else trace))
    return ChainState(after[0], after[1], after[2], state.step + block, state.alone), moved


def _advance_part(
    run: _Run, move: MoveBlock, state: ChainState, part: slice, after: list[Tensor], block: int, trace: int
) -> Moved:
    """Move a part of the chains into `after`: its counts, and the path of its first `trace`."""
    kernel, x = run.kernel, state.position[part]
    noise = normal((block, *x.shape), run.generator, x)
    tests = uniform((block, len(x)), run.generator, x) if kernel.adjusted else None
    scales = [kernel.scales(state.step + k) for k in range(block)]
    settings = (scales, kernel.preconditioner, kernel.clip, trace)
    point, counts, path = move(run.fast.potential, (x, state.energy[part], state.grad[part]), noise, tests, *settings)
    if not x.is_cuda:  # a GPU is asked once, at the end: to read from it waits for all work under way
        _check_sunk(point[1], part.start)
    for whole, moved in zip(after, point, strict=True):
        whole[part] = moved
    return counts, path


def _check_sunk(energy: Tensor, first: int = 0) -> None:
    """Refuse energies (N,) of −∞ at chains counted from `first`."""
    sunk = torch.isneginf(energy).nonzero()
    if len(sunk):
        chain = first + int(sunk[0, 0])
        raise FloatingPointError(f"potential: expected finite energies, got -inf at chain {chain}; bound it from below")


def _info(kernel: Kernel, counts: Tensor, chains: int, first: int, end: int) -> ChainInfo:
    accepted, clipped, reverted = counts.tolist()
    moves = max(1, chains * (end - first))
    drift, noise = kernel.scales(max(0, end - 1))
    acceptance, step = accepted / moves if kernel.adjusted else 1.0, drift if kernel.gradient else noise
    return ChainInfo(acceptance, step, int(reverted), clipped / moves, end - first)
