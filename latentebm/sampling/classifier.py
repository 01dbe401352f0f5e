"""A classifier read as an energy-based model: unconditional, conditional and joint samplers over its logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng, fail
from latentebm.objectives.contrast import contrastive_loss
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import Kernel, check_kernel
from latentebm.sampling.mcmc.state import start_chains

__all__ = [
    "ClassifierSampler",
    "ConditionalSampler",
    "JointSampler",
    "Labelled",
    "UnconditionalSampler",
    "energy_differential",
    "energy_penalty",
]

Base = Callable[[int, torch.Generator], Tensor]


class Labelled(NamedTuple):
    """Points (N, *event) and their labels (N,)."""

    x: Tensor
    y: Tensor


class ClassifierSampler(ABC):
    """Chains over the inputs of a classifier of C classes with logits f(x).

    Arguments:
        logits: the classifier, (N, *event) to (N, C).
        base: law the chains start from, ``base(n, generator) -> (n, *event)``.
        classes: number of classes C.
        chunk: chains at once, which bounds the memory.

    Raises:
        ValueError: `classes` or `chunk` is below 1.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], base: Base, *, classes: int, chunk: int = 4_096) -> None:
        self.logits = logits
        self.base = base
        self.classes = check_int("classes", classes)
        self.chunk = check_int("chunk", chunk)

    def energy(self, x: Tensor, y: Tensor) -> Tensor:
        """Energy (N,) of points (N, *event) with labels (N,).

        Raises:
            ValueError: a label is not of 0 … C − 1, or the logits are not (N, C).
        """
        return self._energy(self._logits(x), self.check_labels(y, len(x)))

    @abstractmethod
    def _energy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Energy (N,) of logits (N, C), the labels checked."""

    def start(self, n: int, *, generator: torch.Generator, y: Tensor | None = None) -> Labelled:
        """Draw `n` points of the base law, with the labels given or drawn uniformly.

        Raises:
            ValueError: a label is not of 0 … C − 1, or there are not n of them.
        """
        check_int("n", n)
        x = self.base(n, check_rng(generator))
        if y is None:
            y = torch.randint(self.classes, (n,), generator=generator, device=generator.device).to(x.device)
        return Labelled(x, self.check_labels(y, n).to(x.device))

    def advance(self, chains: Labelled, kernel: Kernel, n_steps: int, *, generator: torch.Generator) -> Labelled:
        """Move every chain by exactly `n_steps` transitions of the kernel.

        Raises:
            ValueError: the kernel is unknown, `n_steps` is below 1, a label is not of 0 … C − 1, the logits are not
                (N, C), or a chain stays at a non-finite energy after 100 fresh starts from the base law.
        """
        check_kernel(kernel)
        check_int("n_steps", n_steps)
        chains = chains._replace(y=self.check_labels(chains.y, len(chains.x)))
        parts = zip(chains.x.split(self.chunk), chains.y.split(self.chunk), strict=True)
        moved = [self._advance(Labelled(x, y), kernel, n_steps, generator) for x, y in parts]
        return Labelled(*(torch.cat(both) for both in zip(*moved, strict=True)))

    def sample(
        self, n: int, kernel: Kernel, n_steps: int, *, generator: torch.Generator, y: Tensor | None = None
    ) -> Labelled:
        """Draw `n` points by fresh chains from the base law.

        Arguments:
            n: draws, and chains.
            kernel: a Langevin kernel.
            n_steps: transitions of each chain.
            generator: source of the starts, labels and noise.
            y: labels (n,), or none to draw them; a joint sampler only starts from them.

        Raises:
            ValueError: an argument lies outside its range.
        """
        return self.advance(self.start(n, generator=generator, y=y), kernel, n_steps, generator=generator)

    def check_labels(self, y: Tensor, n: int) -> Tensor:
        """Return labels that are n whole numbers of 0 … C − 1.

        Raises:
            ValueError: they are not.
        """
        if not isinstance(y, Tensor) or y.is_floating_point() or tuple(y.shape) != (n,):
            got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
            raise fail("y", f"a tensor of {n} integer labels", got, "pass one class index a chain")
        if len(y) and (int(y.min()) < 0 or int(y.max()) >= self.classes):
            got = f"{int(y.min())} … {int(y.max())}"
            raise fail("y", f"labels of 0 … {self.classes - 1}", got, "pass class indices from 0")
        return y.long()

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
        state = start_chains(potential, x, lambda k: self.base(k, generator), chunk=len(x))._replace(step=first)
        run = run_chains(potential, state, kernel, n_steps, generator=generator, chunk=len(x), partial=False)
        return Labelled(run.state.position, y)


class UnconditionalSampler(ClassifierSampler):
    r"""Samples the marginal law of the inputs; labels ride along unused.

    .. math:: E(x) = -\log \textstyle\sum_y e^{f(x)_y}

    Arguments:
        logits: the classifier, (N, *event) to (N, C).
        base: law the chains start from, ``base(n, generator) -> (n, *event)``.
        classes: number of classes C.
        chunk: chains at once, which bounds the memory.

    Raises:
        ValueError: `classes` or `chunk` is below 1.

    References:
        Your classifier is secretly an energy based model and you should treat it like one (Grathwohl et al., 2020),
        https://arxiv.org/abs/1912.03263

    Example:
        >>> s = UnconditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> s.energy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
        tensor([-0.6931])
    """

    def _energy(self, logits: Tensor, y: Tensor) -> Tensor:
        return -logits.logsumexp(1)


class ConditionalSampler(ClassifierSampler):
    r"""Samples the inputs of given classes.

    .. math:: E(x \mid y) = -f(x)_y

    Arguments:
        logits: the classifier, (N, *event) to (N, C).
        base: law the chains start from, ``base(n, generator) -> (n, *event)``.
        classes: number of classes C.
        chunk: chains at once, which bounds the memory.

    Raises:
        ValueError: `classes` or `chunk` is below 1.

    References:
        Your classifier is secretly an energy based model and you should treat it like one (Grathwohl et al., 2020),
        https://arxiv.org/abs/1912.03263

    Example:
        >>> s = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> s.energy(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
        tensor([-3.])
    """

    def _energy(self, logits: Tensor, y: Tensor) -> Tensor:
        return -logits.gather(1, y[:, None])[:, 0]


class JointSampler(ConditionalSampler):
    r"""Samples inputs and labels together, alternating steps in x given y with draws of y given x.

    .. math:: E(x, y) = -f(x)_y, \quad y \mid x \sim \mathrm{softmax}\, f(x)

    Arguments:
        logits: the classifier, (N, *event) to (N, C).
        base: law the chains start from, ``base(n, generator) -> (n, *event)``.
        classes: number of classes C.
        chunk: chains at once, which bounds the memory.
        every: transitions of x between two draws of the labels.

    Raises:
        ValueError: `classes`, `chunk` or `every` is below 1.

    References:
        Your classifier is secretly an energy based model and you should treat it like one (Grathwohl et al., 2020),
        https://arxiv.org/abs/1912.03263

    Example:
        >>> s = JointSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2, every=5)
        >>> s.every
        5
    """

    def __init__(
        self, logits: Callable[[Tensor], Tensor], base: Base, *, classes: int, chunk: int = 4_096, every: int = 1
    ) -> None:
        super().__init__(logits, base, classes=classes, chunk=chunk)
        self.every = check_int("every", every)

    def _advance(
        self, chains: Labelled, kernel: Kernel, n_steps: int, generator: torch.Generator, first: int = 0
    ) -> Labelled:
        for done in range(0, n_steps, self.every):
            chains = super()._advance(chains, kernel, min(self.every, n_steps - done), generator, first + done)
            chains = chains._replace(y=self._labels(chains.x, generator))
        return chains

    @torch.no_grad()
    def _labels(self, x: Tensor, generator: torch.Generator) -> Tensor:
        logits = self._logits(x)
        return (logits - torch.empty_like(logits).exponential_(generator=generator).log()).argmax(1)


def energy_differential(sampler: ClassifierSampler, data: Labelled, model: Labelled) -> Tensor:
    r"""Mean energy of the data minus that of the model's draws: the gradient of the negative log-likelihood.

    .. math:: \tfrac1n \textstyle\sum_i E(x_i, y_i) - \tfrac1m \sum_j E(\tilde x_j, \tilde y_j)

    Arguments:
        sampler: whose energy it is.
        data: observed points and labels.
        model: draws of the sampler.

    Example:
        >>> s = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> y = torch.tensor([0])
        >>> energy_differential(s, Labelled(torch.ones(1, 2), y), Labelled(torch.zeros(1, 2), y)).item()
        -1.0
    """
    return contrastive_loss(sampler.energy(*data), sampler.energy(*model))


def energy_penalty(sampler: ClassifierSampler, data: Labelled, model: Labelled) -> Tensor:
    r"""Mean squared energies of data and draws, which keep the energy's free constant near zero.

    .. math:: \tfrac1n \textstyle\sum_i E(x_i, y_i)^2 + \tfrac1m \sum_j E(\tilde x_j, \tilde y_j)^2

    Arguments:
        sampler: whose energy it is.
        data: observed points and labels.
        model: draws of the sampler.

    References:
        Implicit generation and modeling with energy based models (Du and Mordatch, 2019),
        https://arxiv.org/abs/1903.08689

    Example:
        >>> s = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
        >>> y = torch.tensor([0])
        >>> energy_penalty(s, Labelled(torch.ones(1, 2), y), Labelled(torch.zeros(1, 2), y)).item()
        1.0
    """
    return contrastive_loss(sampler.energy(*data), sampler.energy(*model), weight=0.0, energy_penalty=1.0)
