"""A classifier read as an energy-based model: unconditional, conditional and joint chains over its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng, fail
from latentebm.devices import beside
from latentebm.objectives.contrast import contrastive_loss
from latentebm.rng import integers
from latentebm.sampling.importance.resampling import pick_columns
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel
from latentebm.sampling.mcmc.persistent import Base, Labelled, check_labels
from latentebm.sampling.mcmc.state import chain_chunk, start_chains

__all__ = ["ClassifierChains", "ConditionalSampler", "JointSampler", "Labelled", "UnconditionalSampler"]
__all__ += ["energy_differential", "energy_penalty"]


class ClassifierChains(ABC):
    """An energy over the inputs of a classifier of C classes with logits f(x), and the chains that sample it.

    They give points with labels by `sample`, where the samplers of a tilt give `Draws` by ``draw``. The logits map
    (N, *event) to (N, C), fresh starts are ``base(n, generator) -> (n, *event)``, and `chunk` chains move at once.

    References:
        Your classifier is secretly an energy based model and you should treat it like one (Grathwohl et al., 2020),
        https://arxiv.org/abs/1912.03263
    """

    def __init__(
        self, logits: Callable[[Tensor], Tensor], base: Base, *, classes: int, chunk: int | None = None
    ) -> None:
        self.logits = logits
        self.base = base
        self.classes = check_int("classes", classes)
        self.chunk = None if chunk is None else check_int("chunk", chunk)

    def energy(self, x: Tensor, y: Tensor) -> Tensor:
        """Energy (N,) of points (N, *event) with labels (N,) of 0 … C − 1."""
        return self._energy(self._logits(x), self.check_labels(y, len(x)))

    @abstractmethod
    def _energy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Energy (N,) of logits (N, C), the labels checked."""

    def start(self, n: int, *, generator: torch.Generator, y: Tensor | None = None) -> Labelled:
        """Draw `n` points of the base, with the labels given or drawn uniformly; wrong labels are refused."""
        check_int("n", n)
        x = self._base(n, check_rng(generator))
        if y is None:
            y = integers(self.classes, (n,), generator, x.device)
        return Labelled(x, self.check_labels(y, n).to(x.device))

    def advance(self, chains: Labelled, kernel: Kernel, n_steps: int, *, generator: torch.Generator) -> Labelled:
        """Move every chain by `n_steps` transitions; one that 100 starts leave at a non-finite energy is refused."""
        check_kernel(kernel)
        check_int("n_steps", n_steps)
        chains = chains._replace(y=self.check_labels(chains.y, len(chains.x)))
        chunk = chain_chunk(self.chunk, chains.x)
        parts = zip(chains.x.split(chunk), chains.y.split(chunk), strict=True)
        moved = [self._advance(Labelled(x, y), kernel, n_steps, generator) for x, y in parts]
        return Labelled(*(torch.cat(both) for both in zip(*moved, strict=True)))

    def sample(
        self, n: int, kernel: Kernel, n_steps: int, *, generator: torch.Generator, y: Tensor | None = None
    ) -> Labelled:
        """Draw `n` points by fresh chains of `n_steps` transitions; joint ones only start from the labels (n,)."""
        return self.advance(self.start(n, generator=generator, y=y), kernel, n_steps, generator=generator)

    def check_labels(self, y: Tensor, n: int) -> Tensor:
        """Return labels that are n whole numbers of 0 … C − 1, or raise a ValueError."""
        check_labels(y, n)
        if len(y) and (int(y.min()) < 0 or int(y.max()) >= self.classes):
            got = f"{int(y.min())} … {int(y.max())}"
            raise fail("y", f"labels of 0 … {self.classes - 1}", got, "pass class indices from 0")
        return y.long()

    def _base(self, n: int, generator: torch.Generator) -> Tensor:
        return beside(self.logits, self.base(n, generator))

    def _logits(self, x: Tensor) -> Tensor:
        logits = self.logits(x)
        if logits.shape != (want := (len(x), self.classes)):
            raise fail("logits", f"shape {want}", tuple(logits.shape), "pass as many classes as there are columns")
        return logits

    def _advance(
        self, chains: Labelled, kernel: Kernel, n_steps: int, generator: torch.Generator, first: int = 0
    ) -> Labelled:
        x, y = chains

        def potential(x: Tensor) -> Tensor:
            return self._energy(self._logits(x), y)

        # A label belongs to its chain: the whole part is one chunk, so that rows and labels stay aligned.
        state = start_chains(potential, x, lambda k: self._base(k, generator), chunk=len(x))._replace(step=first)
        run = run_chains(potential, state, kernel, n_steps, generator=generator, chunk=len(x))
        return Labelled(run.state.position, y)


class UnconditionalSampler(ClassifierChains):
    r"""Samples the marginal distribution of the inputs; labels ride along unused.

    .. math:: E(x) = -\log \textstyle\sum_y e^{f(x)_y}

    Example:
        >>> s = UnconditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> s.energy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
        tensor([-0.6931])
    """

    def _energy(self, logits: Tensor, y: Tensor) -> Tensor:
        return -logits.logsumexp(1)


class ConditionalSampler(ClassifierChains):
    r"""Samples the inputs of given classes.

    .. math:: E(x \mid y) = -f(x)_y

    Example:
        >>> s = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> s.energy(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
        tensor([-3.])
    """

    def _energy(self, logits: Tensor, y: Tensor) -> Tensor:
        return -logits.gather(1, y[:, None])[:, 0]


class JointSampler(ConditionalSampler):
    r"""Samples inputs and labels together, alternating `every` steps in x given y with draws of y given x.

    .. math:: E(x, y) = -f(x)_y, \quad y \mid x \sim \mathrm{softmax}\, f(x)

    Example:
        >>> s = JointSampler(lambda x: 50 * x, lambda n, g: torch.randn(n, 2, generator=g), classes=2, every=5)
        >>> s.draw_labels(torch.eye(2), torch.Generator().manual_seed(0))
        tensor([0, 1])
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], base: Base, *, every: int = 1, **settings: Any) -> None:
        super().__init__(logits, base, **settings)
        self.every = check_int("every", every)

    def _advance(
        self, chains: Labelled, kernel: Kernel, n_steps: int, generator: torch.Generator, first: int = 0
    ) -> Labelled:
        for done in range(0, n_steps, self.every):
            chains = super()._advance(chains, kernel, min(self.every, n_steps - done), generator, first + done)
            chains = chains._replace(y=self.draw_labels(chains.x, generator))
        return chains

    @torch.no_grad()
    def draw_labels(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the labels (N,) of points (N, *event) from the softmax of their logits."""
        return pick_columns(self._logits(x), generator)


def energy_differential(sampler: ClassifierChains, data: Labelled, model: Labelled) -> Tensor:
    r"""Mean energy of the data minus that of the model's draws: the gradient of the negative log-likelihood.

    .. math:: \tfrac1n \textstyle\sum_i E(x_i, y_i) - \tfrac1m \sum_j E(\tilde x_j, \tilde y_j)

    Example:
        >>> s = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> y = torch.tensor([0])
        >>> energy_differential(s, Labelled(torch.ones(1, 2), y), Labelled(torch.zeros(1, 2), y)).item()
        -1.0
    """
    return contrastive_loss(sampler.energy(*data), sampler.energy(*model))


def energy_penalty(sampler: ClassifierChains, data: Labelled, model: Labelled) -> Tensor:
    r"""Mean squared energies of data and draws, which keep the energy's free constant near zero.

    .. math:: \tfrac1n \textstyle\sum_i E(x_i, y_i)^2 + \tfrac1m \sum_j E(\tilde x_j, \tilde y_j)^2
    """
    return contrastive_loss(sampler.energy(*data), sampler.energy(*model), weight=0.0, energy_penalty=1.0)
