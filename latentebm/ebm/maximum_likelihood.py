"""Maximum likelihood by MCMC: contrastive divergence, short-run and persistent chains, over data of any shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_number, fail
from latentebm.data.batches import Minibatches
from latentebm.devices import beside
from latentebm.ebm.check_energy import check_energy
from latentebm.objectives.contrast import contrastive_loss, gradient_penalty, interpolates
from latentebm.progress import Track, silent
from latentebm.rng import normal
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.mcmc.persistent import Base, Labelled, ReplayBuffer
from latentebm.training.fit import FitResult, fit
from latentebm.training.keep import Guard
from latentebm.training.logs import Log
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["MCMCRecipe", "Negatives", "fit_ebm"]

Start = Literal["buffer", "base", "data"]


@dataclass(frozen=True, kw_only=True)
class MCMCRecipe(Optimisation):
    """How an energy is fitted by maximum likelihood with MCMC draws; the optimizer's settings are `Optimisation`'s.

    The default kernel suits data of about unit spread; steps that reach from mode to mode serve better than steps that
    are mostly accepted. Chains start where those of a replay ``buffer`` stand (persistent contrastive divergence), at
    draws of the ``base`` (short runs) or at the ``data`` of the batch (contrastive divergence). A chain of the buffer
    starts again from a base draw with probability `restart`, which helps chains stuck in too few modes, but biases the
    gradient until it has converged.
    """

    kernel: Kernel = MALA(0.1)  # noqa: RUF009 - frozen, like every kernel
    n_steps: int = 20  # transitions of the chains per optimizer step, the k of CD-k
    start: Start = "buffer"
    buffer_size: int = 10_000
    restart: float = 0.0
    energy_penalty: float = 0.0  # λ of the squared energies, 1/nats
    gradient_penalty: float = 0.0  # weight of the squared gradient norm between data and draws
    noise: float = 0.0  # standard deviation of Gaussian noise added to the data, in the data's units
    epochs: int = 30
    batch_size: int = 256  # data, and chains, per step
    max_gap: float = 50.0  # largest energy gap between draws and data before training is rolled back, nats
    schedule: Schedule = "cosine"
    clip: float | None = 10.0
    average: float = 0.99

    def __post_init__(self) -> None:
        check_kernel(self.kernel)
        check_int("n_steps", self.n_steps, fix="CD-k takes k ≥ 1 transitions: without any, draws and data coincide")
        super().__post_init__()
        check_number("restart", self.restart, low=0, high=1)
        if self.start == "buffer" and self.buffer_size < self.batch_size:
            raise fail("buffer_size", f"at least the batch's {self.batch_size}", self.buffer_size, "enlarge the buffer")


class Negatives:
    """Draws of the model for each step: chains started where the recipe says and moved by its kernel.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> negatives = Negatives(MCMCRecipe(buffer_size=300), lambda n, g: torch.randn(n, 2, generator=g), g)
        >>> x = negatives(lambda x: 2 * x.square().sum(1), torch.zeros(256, 2), g)
        >>> abs(x.std().item() - 0.5) < 0.1
        True
    """

    def __init__(self, recipe: MCMCRecipe, base: Base, generator: torch.Generator) -> None:
        self.recipe, self.base = recipe, base
        self.buffer = ReplayBuffer(base(recipe.buffer_size, generator)) if recipe.start == "buffer" else None

    def __call__(self, energy: Callable[[Tensor], Tensor], batch: Tensor, generator: torch.Generator) -> Tensor:
        """Draw as many points as the batch (N, *event) has."""

        def move(chains: Labelled) -> Labelled:
            kernel, n_steps = self.recipe.kernel, self.recipe.n_steps
            run = run_chains(energy, chains.x, kernel, n_steps, generator=generator, partial=False)
            return chains._replace(x=run.state.position)

        if self.buffer is None:
            start = batch if self.recipe.start == "data" else self.base(len(batch), generator)
            return move(Labelled(start, start)).x
        restart = self.recipe.restart
        return self.buffer.step(len(batch), move, base=self.base, restart=restart, generator=generator).chains.x


def fit_ebm(
    energy: nn.Module,
    data: Tensor,
    recipe: MCMCRecipe | None = None,
    *,
    base: Base | None = None,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Fit an energy to data by maximum likelihood, the model's side of the gradient from Markov chains.

    .. math:: \nabla_\theta \log p_\theta(x) = -\nabla_\theta E(x) + E_{\tilde x}[\nabla_\theta E(\tilde x)], \quad
        \tilde x \sim p_\theta

    Where the energy gap between draws and data grows too large, training goes back to a good state at half the learning
    rate, and the record's ``log`` says so. Its losses are energy gaps, not likelihoods.

    The energy, (N, *event) to (N,) in nats, is fitted in place to data (N, *event). Fresh chains start at
    ``base(n, generator) -> (n, *event)``, such as noise or draws of a VAE; None is Gaussian noise of the data's mean
    and standard deviation in each entry.

    Raises:
        ValueError: the data are not floating and finite, or the energy is not one number per point that depends on it.
        DivergedError: training went on diverging; the energy holds its last good state.

    References:
        On the Anatomy of MCMC-Based Maximum Likelihood Learning of Energy-Based Models (Nijkamp et al., 2020),
        https://arxiv.org/abs/1903.12370

    Example:
        >>> from latentebm.models.networks import mlp
        >>> g = torch.Generator().manual_seed(0)
        >>> energy = nn.Sequential(mlp((1, 16, 1), generator=g), nn.Flatten(0))
        >>> data = 2 + torch.randn(512, 1, generator=g)
        >>> wide = lambda n, g: 8 * torch.rand(n, 1, generator=g) - 2
        >>> result = fit_ebm(energy, data, MCMCRecipe(epochs=20, lr=0.03, n_steps=5), base=wide, generator=g)
        >>> bool(energy(torch.tensor([[2.0]])) < energy(torch.tensor([[4.5]]))), result.log
        (True, [])
    """
    recipe = recipe or MCMCRecipe()
    data = beside(energy, data)
    check_energy(energy, data)
    fresh = base or _noise_like(data)
    negatives = Negatives(recipe, lambda n, rng: fresh(n, rng).to(data), generator)
    guard = Guard(energy, max_gap=recipe.max_gap, extra=[negatives.buffer.x] if negatives.buffer else [])

    def loss(batch: tuple[Tensor]) -> Tensor:
        x = batch[0]
        if recipe.noise:
            x = x + recipe.noise * normal(x.shape, generator, x)
        drawn = negatives(energy, x, generator)
        # One pass over both: half the overhead for small networks.
        positive, negative = energy(torch.cat([x, drawn])).split(len(x))
        guard.observe(contrastive_loss(negative, positive))
        value = contrastive_loss(positive, negative, energy_penalty=recipe.energy_penalty)
        if recipe.gradient_penalty:
            points = interpolates(x, drawn, generator=generator)
            value = value + recipe.gradient_penalty * gradient_penalty(energy(points), points)
        return value

    batches = Minibatches(data, batch_size=recipe.batch_size, epochs=recipe.epochs, generator=generator)
    known: dict[str, Any] = {"guard": guard, "state": [generator], "track": track, "log": log}
    return fit(energy, loss, batches, recipe, **known, description="energy")


def _noise_like(data: Tensor) -> Base:
    mean, sd = data.mean(0), data.std(0, correction=0)
    return lambda n, generator: mean + sd * normal((n, *mean.shape), generator, mean)
