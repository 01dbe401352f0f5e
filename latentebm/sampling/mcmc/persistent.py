"""Persistent Markov chains: a replay buffer from which chains start and to which they return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.files import write_atomic
from latentebm.progress import Track, silent
from latentebm.sampling.classifier import ClassifierSampler, Labelled
from latentebm.sampling.draws import Draws, Target, check_gradient, gather_draws, tilt_energy
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel
from latentebm.sampling.mcmc.state import start_chains

__all__ = ["PMC", "ReplayBuffer"]


class ReplayBuffer:
    """The chains' last positions (size, *event) and labels (size,), zeros where chains have none.

    Arguments:
        x: positions, (size, *event).
        y: labels (size,), or none.

    Raises:
        ValueError: there is no chain, the positions are not floating, or the labels are not one a chain.

    Example:
        >>> buffer = ReplayBuffer(torch.randn(10, 2))
        >>> rows = buffer.pick(3, generator=torch.Generator().manual_seed(0))
        >>> len(buffer), len(rows.unique())
        (10, 3)
    """

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1:
            got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise fail("x", "a tensor of floating positions (size, …)", got, "convert them with .float()")
        check_int("size", len(x), fix="fill the buffer with at least one chain")
        self.x = x.detach().clone()
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        self.y = _labels(y, len(x)).detach().clone()

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, n: int, *, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        """Choose `n` distinct rows at random, or with labels given, one row of each label asked for.

        Raises:
            ValueError: the buffer holds fewer chains, or fewer of a label, than are asked for, or labels are not `n`.
        """
        check_int("n", n)
        check_rng(generator)
        order = torch.randperm(len(self), generator=generator, device=generator.device).to(self.x.device)
        if y is None:
            if n > len(self):
                raise fail("n", f"at most the buffer's {len(self)} chains", n, f"enlarge the buffer to {n} or more")
            return order[:n]
        _labels(y, n)
        rows = torch.empty(n, dtype=torch.long, device=self.x.device)
        for label in y.unique():
            wanted = (y == label).nonzero()[:, 0]
            held = order[self.y[order] == label]
            if len(held) < len(wanted):
                raise fail("y", f"at most {len(held)} chains of label {int(label)}", len(wanted), "enlarge the buffer")
            rows[wanted] = held[: len(wanted)]
        return rows

    def put(self, rows: Tensor, x: Tensor, y: Tensor | None = None) -> None:
        """Return chains to their rows."""
        self.x[rows] = x.detach()
        if y is not None:
            self.y[rows] = y.to(self.y)

    def save(self, path: Path | str) -> Path:
        """Write the buffer as safetensors, atomically.

        Raises:
            OSError: the folder cannot be written.
        """
        return write_atomic(path, lambda p: save_file({"x": self.x.contiguous(), "y": self.y.contiguous()}, p))

    @classmethod
    def load(cls, path: Path | str) -> ReplayBuffer:
        """Read a buffer written by `save`.

        Raises:
            OSError: the file cannot be read.
            safetensors.SafetensorError: it holds no tensors.
            ValueError: it holds other tensors.
        """
        held = load_file(path)
        if set(held) != {"x", "y"}:
            raise fail("path", "a buffer's tensors x and y", f"{sorted(held)} in {path}", "pass a file save() wrote")
        return cls(held["x"], held["y"])


def _labels(y: Tensor, n: int) -> Tensor:
    if not isinstance(y, Tensor) or y.is_floating_point() or tuple(y.shape) != (n,):
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise fail("y", f"a tensor of {n} integer labels", got, "pass one label a chain")
    return y


class PMC:
    r"""Persistent Markov chains over a tilt or a classifier: each call goes on where a buffer of chains stands.

    .. math:: x_0 = \begin{cases} \text{a base draw} & \text{with probability } p \\
        \text{a chain of the buffer} & \text{otherwise} \end{cases}, \quad
        x_n \sim K^n(x_0, \cdot)

    The buffer is filled with base draws at the first call, then kept in ``buffer``. A kernel whose step falls with time
    starts at its first step in every call.

    Arguments:
        kernel: a Langevin kernel.
        n_steps: transitions of each chain a call, exactly.
        size: chains in the buffer.
        restart: probability that a chain starts anew.
        buffer: a buffer to go on from, or none.

    Raises:
        ValueError: an argument lies outside its range.

    References:
        Training restricted Boltzmann machines using approximations to the likelihood gradient (Tieleman, 2008);
        Implicit generation and modeling with energy based models (Du and Mordatch, 2019), https://arxiv.org/abs/1903.08689

    Example:
        >>> from latentebm.sampling.classifier import ConditionalSampler
        >>> from latentebm.sampling.mcmc.kernels import ULA
        >>> g = torch.Generator().manual_seed(0)
        >>> sampler = ConditionalSampler(lambda x: -x.square(), lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> pmc = PMC(ULA(0.1), n_steps=5, size=100)
        >>> pmc.sample(sampler, 20, generator=g).x.shape, len(pmc.buffer)
        (torch.Size([20, 2]), 100)
    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        n_steps: int = 20,
        size: int = 10_000,
        restart: float = 0.05,
        buffer: ReplayBuffer | None = None,
    ) -> None:
        self.kernel = check_kernel(kernel)
        self.n_steps = check_int("n_steps", n_steps)
        self.size = check_int("size", size)
        self.restart = check_number("restart", restart, low=0, high=1)
        if buffer is not None and not isinstance(buffer, ReplayBuffer):
            raise fail("buffer", "a ReplayBuffer or None", type(buffer).__name__, "pass ReplayBuffer(positions)")
        self.buffer = buffer

    def sample(
        self, sampler: ClassifierSampler, n: int, *, generator: torch.Generator, y: Tensor | None = None
    ) -> Labelled:
        """Move `n` of the buffer's chains over a classifier and return them.

        Arguments:
            sampler: the classifier read as an energy.
            n: chains.
            generator: source of every choice.
            y: labels (n,) asked for, or none to take the chains as they come.

        Raises:
            ValueError: the buffer is smaller than `n`, holds too few chains of a label, or a label is out of range.
        """
        check_int("n", n)
        if y is not None:
            sampler.check_labels(y, n)
        buffer = self.fill(sampler, n, generator=generator)
        rows = buffer.pick(n, generator=generator, y=y)
        chains = Labelled(buffer.x[rows], buffer.y[rows])
        anew = self._restarts(n, generator, chains.x)
        if len(anew):
            chains.x[anew] = sampler.base(len(anew), generator)
        moved = sampler.advance(chains, self.kernel, self.n_steps, generator=generator)
        buffer.put(rows, *moved)
        return moved

    def fill(self, sampler: ClassifierSampler, n: int, *, generator: torch.Generator) -> ReplayBuffer:
        """Return the buffer, filled with the classifier's starts of all labels alike if there is none yet.

        Arguments:
            sampler: the classifier read as an energy.
            n: chains that will be asked for at once.
            generator: source of the starts.

        Raises:
            ValueError: the buffer is smaller than `n`.
        """
        if self.buffer is None:
            self._check_size(n)
            balanced = torch.arange(self.size) % sampler.classes
            self.buffer = ReplayBuffer(*sampler.start(self.size, generator=generator, y=balanced))
        return self.buffer

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Move `n` of the buffer's chains over a tilt and return them as draws.

        Arguments:
            tilt: the target.
            n: draws, and chains.
            generator: source of every choice.
            track: shows progress.

        Raises:
            ValueError: the buffer is smaller than `n`, a chain finds no finite start, or an unadjusted kernel meets an
                energy of steps.
            FloatingPointError: an energy of −∞.
        """
        check_int("n", n)
        check_rng(generator)
        if self.buffer is None:
            self._check_size(n)
            self.buffer = ReplayBuffer(tilt.sample_base(self.size, generator=generator))
        rows = self.buffer.pick(n, generator=generator)
        u = self.buffer.x[rows]
        anew = self._restarts(n, generator, u)
        if len(anew):
            u[anew] = tilt.sample_base(len(anew), generator=generator)
        with torch.no_grad():
            tilt_energy(tilt, u)  # its shape: a potential would spread one energy over all chains
        if not self.kernel.adjusted:
            check_gradient(tilt, u)
        start = start_chains(tilt.potential, u, lambda k: tilt.sample_base(k, generator=generator))
        settings: dict[str, Any] = {"generator": generator, "partial": False, "track": track}
        run = run_chains(tilt.potential, start, self.kernel, self.n_steps, **settings)
        self.buffer.put(rows, run.state.position)
        info = run.info._asdict()
        with torch.no_grad():
            log_weight = -tilt_energy(tilt, run.state.position)
        diagnostics = {"sampler": "pmc", "restarted": len(anew), "buffer": len(self.buffer), **info}
        return gather_draws(tilt, run.state.position, log_weight, diagnostics)

    def _restarts(self, n: int, generator: torch.Generator, like: Tensor) -> Tensor:
        uniform = torch.rand(n, generator=generator, device=generator.device)
        return (uniform < self.restart).nonzero()[:, 0].to(like.device)

    def _check_size(self, n: int) -> None:
        if n > self.size:
            raise fail("size", f"a buffer of at least the batch's {n} chains", self.size, f"pass size={n} or more")
