"""The energy, the methods that fit it, and torchebm's losses in the same loop: what ``training.py`` compares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.data.batches import Minibatches
from latentebm.ebm.learned_sampler import AmortizedRecipe, fit_amortized
from latentebm.ebm.maximum_likelihood import MCMCRecipe, fit_ebm
from latentebm.ebm.noise import NoiseEnergy
from latentebm.ebm.score import ScoreRecipe, fit_score
from latentebm.models.energies import EnergyNet
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives.tilt_losses import likelihood_loss
from latentebm.sampling import MALA, ULA, ImproperSGLD, RandomWalk
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation

BATCH = 256
HIDDEN = (128, 128)
LR = 5e-3


@dataclass(frozen=True)
class Scale:
    """Sizes of a problem in its own units: the base Gaussian, chain steps, noise."""

    dim: int
    sd: float  # of the base N(0, sd² I)
    gain: float  # of the network's input, so that the finest detail is of order one
    mala: float
    ula: float
    walk: float
    noise: float
    low: float  # least and largest noise level of multi-scale matching, and the data's spread
    high: float
    spread: float


PLANE = Scale(2, 2.0, 6.0, mala=0.1, ula=0.01, walk=1.0, noise=0.1, low=0.05, high=3.0, spread=1.4)


class Energy(nn.Module):
    """A perceptron over a wide Gaussian, counting the points it was asked about; it starts at the Gaussian itself."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.net, self.scale, self.evaluations = EnergyNet(scale.dim, hidden=HIDDEN), scale, 0

    def tilt(self, x: Tensor) -> Tensor:
        self.evaluations += x.shape[:-1].numel()
        return self.net(self.scale.gain * x)

    def forward(self, x: Tensor) -> Tensor:
        return self.tilt(x) + x.square().sum(-1) / (2 * self.scale.sd**2)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluations += len(x)
        value, grad = self.net.value_and_grad(self.scale.gain * x)
        variance = self.scale.sd**2
        return value + x.square().sum(-1) / (2 * variance), self.scale.gain * grad + x / variance


class Levels(NoiseEnergy):
    """The same perceptron with the noise level as a further input, counting as well."""

    def __init__(self, scale: Scale, stride: float) -> None:
        low = min(scale.low * stride, scale.high / 2)
        super().__init__(scale.dim, low=low, high=scale.high, hidden=HIDDEN, spread=scale.spread)
        self.evaluations = 0

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        self.evaluations += len(x)
        return super().forward(x, sigma)


@dataclass(frozen=True)
class Run:
    """One run: data, steps, randomness, and what multiplies the learning rate and the chains' step or the noise."""

    scale: Scale
    data: Tensor
    steps: int
    g: torch.Generator
    factor: float = 1.0
    stride: float = 1.0

    def base(self, n: int, g: torch.Generator) -> Tensor:
        return self.scale.sd * torch.randn(n, self.scale.dim, generator=g)

    def batches(self) -> Minibatches:
        epochs = max(1, self.steps // (len(self.data) // BATCH))
        return Minibatches(self.data, batch_size=BATCH, epochs=epochs, generator=self.g)

    def loop(self, energy: Energy, loss: Callable[[Tensor], Tensor]) -> list[str]:
        """The package's own loop with any loss: optimizer, schedule, clipping and averaging are the same for all."""
        settings = Optimisation(lr=LR * self.factor, schedule="onecycle", clip=10.0, average=0.99)
        return fit(energy, lambda batch: loss(batch[0]), self.batches(), settings).log


@dataclass(frozen=True)
class Method:
    """How to fit, and the module to fit."""

    fit: Callable[[Any, Run], list[str]]
    build: Callable[[Run], Any] = field(default=lambda run: Energy(run.scale))


def chains(kernel: Callable[[Scale, float], Any], **settings: Any) -> Method:
    """Maximum likelihood by MCMC; the kernel is made for a scale and a multiple of its step."""

    def run(energy: Energy, run: Run) -> list[str]:
        recipe = {"schedule": "onecycle", "n_steps": 10, "buffer_size": 2_000, "restart": 0.0, **settings}
        made = kernel(run.scale, run.stride)
        epochs = len(run.batches()) // (len(run.data) // BATCH)
        given = MCMCRecipe(**recipe, kernel=made, lr=LR * run.factor, epochs=epochs)
        return fit_ebm(energy, run.data, given, base=run.base, generator=run.g).log

    return Method(run)


def mala(scale: Scale, stride: float) -> MALA:
    return MALA(scale.mala * stride)


def cold(scale: Scale, stride: float) -> ImproperSGLD:
    """Drift and noise at a temperature of one quarter, as image models use far colder ones."""
    return ImproperSGLD(alpha=2 * scale.ula * stride, sigma=math.sqrt(0.5 * scale.ula * stride))


def score(**settings: Any) -> Method:
    """Score matching; the stride multiplies the noise of denoising."""

    def run(energy: Any, run: Run) -> list[str]:
        given = dict(settings)
        if given["method"] == "denoising":
            given["sigma"] = run.scale.noise * run.stride
        recipe = ScoreRecipe(**given, steps=run.steps, lr=LR * run.factor)
        return fit_score(energy, run.data, recipe, generator=run.g).log

    return Method(run)


def levels() -> Method:
    """Multi-scale denoising; the stride multiplies the least level."""
    return Method(score(method="multiscale").fit, lambda run: Levels(run.scale, run.stride))


def base_draws(energy: Energy, run: Run) -> list[str]:
    """The likelihood objective of the tilt: log Z from 1,024 fresh draws of the base."""
    return run.loop(energy, lambda x: likelihood_loss(energy.tilt(x), energy.tilt(run.base(1024, run.g))))


def learned(energy: Energy, run: Run) -> list[str]:
    """A sampler trained with the energy, its entropy by the variational bound; the stride multiplies its noise."""
    dim = run.scale.dim
    source = SamplerNet(dim, dim, hidden=HIDDEN, noise=min(run.scale.noise * run.stride, 1.0))
    recipe = AmortizedRecipe(steps=run.steps, lr=AmortizedRecipe.lr * run.factor)
    return fit_amortized(energy, source, run.data, recipe, generator=run.g).log


def peer(name: str, **settings: Any) -> Method:
    """A loss of torchebm in the same loop; the stride multiplies its chains' step or its noise."""

    def run(energy: Energy, run: Run) -> list[str]:
        from torchebm import losses, samplers

        model, given = _as_model(energy), dict(settings)
        if "step" in given:
            step = given.pop("step") * run.stride * run.scale.ula / PLANE.ula
            sampler = getattr(samplers, given.pop("sampler", "LangevinDynamics"))
            given["sampler"] = sampler(model=model, step_size=step, **given.pop("options", {}))
        if name == "DenoisingScoreMatching":
            given["noise_scale"] = run.scale.noise * run.stride
        objective = getattr(losses, name)(model=model, **given)

        def loss(x: Tensor) -> Tensor:
            value = objective(x, generator=run.g)
            return value[0] if isinstance(value, tuple) else value

        log = run.loop(energy, loss)
        if name == "ScoreMatching":
            energy.evaluations *= BATCH  # mapped over points, it asks for one at a time
        return log

    return Method(run)


def _as_model(energy: Energy) -> Any:
    from torchebm.core import BaseModel

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.energy = energy

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self.energy(x)

    return Model()


METHODS: dict[str, Method] = {
    "PCD, MALA": chains(mala),
    "PCD, random walk": chains(lambda s, k: RandomWalk(s.walk * k)),
    "PCD, ULA": chains(lambda s, k: ULA(s.ula * k)),
    "PCD, ImproperSGLD at T = 1/4": chains(cold),
    "CD-10 from data": chains(mala, start="data"),
    "short runs from noise": chains(mala, start="base"),
    "likelihood, base draws": Method(base_draws),
    "learned sampler": Method(learned),
    "denoising": score(method="denoising"),
    "multi-scale denoising": levels(),
    "sliced": score(method="sliced"),
    "exact score": score(method="exact"),
    "torchebm CD": peer("ContrastiveDivergence", step=0.005),
    "torchebm CD, smaller step": peer("ContrastiveDivergence", step=0.002),  # better on rings
    "torchebm PCD": peer("ContrastiveDivergence", step=0.01, persistent=True, buffer_size=2_000),
    "torchebm denoising": peer("DenoisingScoreMatching"),
    "torchebm sliced": peer("SlicedScoreMatching"),
    "torchebm exact score": peer("ScoreMatching"),
}
