"""Persistent Markov chains: a replay buffer from which chains start and to which they return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.devices import pick_device
from latentebm.disk.statefile import load_tensors, save_tensors
from latentebm.progress import Track, silent
from latentebm.rng import permutation, uniform
from latentebm.sampling.diagnostics import stuck
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel
from latentebm.sampling.mcmc.state import ChainRun, chain_starts, start_on
from latentebm.sampling.target import Target

if TYPE_CHECKING:
    from latentebm.sampling.classifier import ClassifierChains

__all__ = ["PMC", "Base", "Labelled", "ReplayBuffer", "Stepped", "check_labels"]

Base = Callable[[int, torch.Generator], Tensor]  # fresh starts: base(k, generator) -> (k, *event)


class Labelled(NamedTuple):
    """Points (N, *event) and their labels (N,)."""

    x: Tensor
    y: Tensor


class Stepped(NamedTuple):
    """Chains of a buffer after they were moved, and how many of them had started again."""

    chains: Labelled
    restarted: int


class ReplayBuffer:
    """The chains' last positions (size, *event), floating, and labels (size,), zeros where chains have none."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1:
            got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise fail("x", "a tensor of floating positions (size, …)", got, "convert them with .float()")
        check_int("size", len(x), fix="fill the buffer with at least one chain")
        self.x = x.detach().clone()
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        self.y = check_labels(y, len(x)).detach().clone()

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, n: int, *, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        """Choose `n` distinct rows at random, or with labels (n,) given, one of each label; too few are refused."""
        check_int("n", n)
        order = permutation(len(self), check_rng(generator), self.x.device)
        if y is None:
            if n > len(self):
                raise fail("n", f"at most the buffer's {len(self)} chains", n, f"enlarge the buffer to {n} or more")
            return order[:n]
        check_labels(y, n)
        rows = torch.empty(n, dtype=torch.long, device=self.x.device)
        for label in y.unique():
            wanted = (y == label).nonzero()[:, 0]
            held = order[self.y[order] == label]
            if len(held) < len(wanted):
                raise fail("y", f"at most {len(held)} chains of label {int(label)}", len(wanted), "enlarge the buffer")
            rows[wanted] = held[: len(wanted)]
        return rows

    def step(
        self,
        n: int,
        move: Callable[[Labelled], Labelled],
        *,
        base: Base,
        restart: float = 0.0,
        generator: torch.Generator,
        y: Tensor | None = None,
    ) -> Stepped:
        r"""Pick `n` chains, start some of them again, move them and put them back.

        .. math:: x_0 = \begin{cases} \text{a base draw} & \text{with probability } p \\
            \text{a chain of the buffer} & \text{otherwise} \end{cases}, \quad x_n \sim K^n(x_0, \cdot)

        `base` gives fresh starts, `move` maps chains to where they end, and p is `restart`. Chains are taken as they
        come, or with the labels (n,) asked for.

        References:
            Training restricted Boltzmann machines using approximations to the likelihood gradient (Tieleman, 2008),
            https://doi.org/10.1145/1390156.1390290

        Example:
            >>> buffer, g = ReplayBuffer(torch.ones(10, 2)), torch.Generator().manual_seed(0)
            >>> zeros = lambda k, g: torch.zeros(k, 2)
            >>> moved = buffer.step(3, lambda chains: chains._replace(x=chains.x / 2), base=zeros, generator=g)
            >>> moved.chains.x[0], moved.restarted, int((buffer.x == 0.5).all(1).sum())
            (tensor([0.5000, 0.5000]), 0, 3)
        """
        rows = self.pick(n, generator=generator, y=y)
        chains = Labelled(self.x[rows], self.y[rows])
        again = (uniform((n,), generator, self.x) < restart).nonzero()[:, 0]
        if len(again):
            chains.x[again] = base(len(again), generator).to(self.x)
        moved = move(chains)
        self.x[rows], self.y[rows] = moved.x.detach(), moved.y.to(self.y)
        return Stepped(moved, len(again))

    def save(self, path: Path | str) -> Path:
        """Write the buffer as safetensors, atomically."""
        return save_tensors(path, {"x": self.x.contiguous(), "y": self.y.contiguous()})

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu") -> ReplayBuffer:
        """Read a buffer written by `save` onto a device."""
        there, held = pick_device(device), load_tensors(path, "path")
        if set(held) != {"x", "y"}:
            raise fail("path", "a buffer's tensors x and y", f"{sorted(held)} in {path}", "pass a file save() wrote")
        return cls(held["x"].to(there), held["y"].to(there))


def check_labels(y: Tensor, n: int) -> Tensor:
    """Return labels if they are `n` whole numbers, or raise a ValueError."""
    if not isinstance(y, Tensor) or y.is_floating_point() or tuple(y.shape) != (n,):
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise fail("y", f"a tensor of {n} integer labels", got, "pass one class index per chain")
    return y


class PMC:
    """Persistent Markov chains; not population Monte Carlo: each call goes on where a buffer of chains stands.

    `draw` moves chains over a tilt, as every sampler does; `sample` over a classifier read as an energy. The buffer is
    filled with base draws at the first call, then kept in ``buffer``. A kernel whose step falls with time starts at its
    first step in every call.

    Each call makes exactly `n_steps` transitions of each chain, after it has started again from the base with
    probability `restart`. With `starts` above 1 it starts, here and at first, at one of as many base draws, by their
    weights. A buffer given is gone on from; `compile` is that of :func:`run_chains`.

    Example:
        >>> from latentebm.sampling.classifier import ConditionalSampler
        >>> from latentebm.sampling.mcmc.kernels import ULA
        >>> g = torch.Generator().manual_seed(0)
        >>> chains = ConditionalSampler(lambda x: -x.square(), lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> pmc = PMC(ULA(0.1), n_steps=5, size=100)
        >>> pmc.sample(chains, 20, generator=g).x.shape, len(pmc.buffer)
        (torch.Size([20, 2]), 100)
    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        n_steps: int = 20,
        size: int = 10_000,
        restart: float = 0.05,
        starts: int = 1,
        buffer: ReplayBuffer | None = None,
        compile: bool | None = None,  # noqa: A002 - the name torch users know
    ) -> None:
        self.kernel = check_kernel(kernel)
        self.n_steps = check_int("n_steps", n_steps)
        self.size = check_int("size", size)
        self.restart = check_number("restart", restart, low=0, high=1)
        self.starts = check_int("starts", starts)
        if buffer is not None and not isinstance(buffer, ReplayBuffer):
            raise fail("buffer", "a ReplayBuffer or None", type(buffer).__name__, "pass ReplayBuffer(positions)")
        self.buffer = buffer
        self.compile = compile

    def sample(
        self, chains: ClassifierChains, n: int, *, generator: torch.Generator, y: Tensor | None = None
    ) -> Labelled:
        """Move `n` of the buffer's chains over a classifier and return them, of any or of the given labels (n,)."""
        check_int("n", n)
        if y is not None:
            chains.check_labels(y, n)
        buffer = self.fill(chains, n, generator=generator)

        def move(held: Labelled) -> Labelled:
            return chains.advance(held, self.kernel, self.n_steps, generator=generator)

        return buffer.step(n, move, base=chains.base, restart=self.restart, generator=generator, y=y).chains

    def fill(self, chains: ClassifierChains, n: int, *, generator: torch.Generator) -> ReplayBuffer:
        """Return the buffer, filled at first with the classifier's starts of all labels alike; `n` chains must fit."""
        if self.buffer is None:
            self._check_size(n)
            balanced = torch.arange(self.size) % chains.classes
            self.buffer = ReplayBuffer(*chains.start(self.size, generator=generator, y=balanced))
        return self.buffer

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Move `n` of the buffer's chains over a tilt and return them as draws.

        The diagnostics are `ChainInfo`, how many chains ``restarted`` and the size of the ``buffer``; errors are those
        of :meth:`Langevin.draw`.
        """
        check_int("n", n)
        check_rng(generator)
        if self.buffer is None:
            self._check_size(n)
            self.buffer = ReplayBuffer(chain_starts(tilt, self.size, self.starts, generator=generator))
        runs: list[ChainRun] = []

        def move(held: Labelled) -> Labelled:
            start = start_on(tilt, held.x, self.kernel, generator=generator)
            own: dict[str, Any] = {"generator": generator, "compile": self.compile, "track": track}
            runs.append(run_chains(tilt, start, self.kernel, self.n_steps, **own))
            return held._replace(x=runs[0].state.position)

        own: dict[str, Any] = {"restart": self.restart, "generator": generator}
        moved = self.buffer.step(n, move, base=lambda k, g: chain_starts(tilt, k, self.starts, generator=g), **own)
        counts = {"restarted": moved.restarted, "buffer": len(self.buffer)}
        info = runs[0].info
        report = {"sampler": "pmc", **counts, **info._asdict(), **stuck(info.acceptance)}
        return gather_draws(tilt, moved.chains.x, report)

    def _check_size(self, n: int) -> None:
        if n > self.size:
            raise fail("size", f"a buffer of at least the batch's {n} chains", self.size, f"pass size={n} or more")
