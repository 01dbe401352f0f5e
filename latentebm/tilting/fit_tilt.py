"""Fit a tilt's energy to a reference set, the model frozen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from latentebm import processes
from latentebm.checks import fail
from latentebm.models.energies import EnsembleEnergy
from latentebm.objectives.contrast import gradient_penalty, interpolates
from latentebm.progress import Track, silent
from latentebm.rng import integers, on_device
from latentebm.tilting.held_out import by_fold, held_out_draws
from latentebm.tilting.objectives import OBJECTIVES, Objective
from latentebm.tilting.sides import Sides
from latentebm.training.fit import FitResult, fit
from latentebm.training.logs import Log
from latentebm.training.optimisation import Optimisation, Schedule
from latentebm.training.picks import Picks

__all__ = ["TiltRecipe", "fit_energy", "fit_members"]


@dataclass(frozen=True, kw_only=True)
class TiltRecipe(Optimisation):
    """How an energy is fitted; `Optimisation` explains lr, schedule, clip, weight_decay and average.

    Attributes:
        objective: an `Objective`, or the name of one with its defaults.
        gradient_penalty: weight of the squared gradient norm on interpolates; 0 for none.
        steps: most optimizer steps.
        batch: reference draws per step and member.
        base_batch: base draws per step, K of the log Z estimate.
        chains: chains per step of the contrastive objective.
        chain_steps: steps of each chain between two of the optimizer's.
        sampler_draws: draws per step of each member's learned sampler (amortized objective).
        every: steps between held-out checks.
        patience: checks without improvement of any member before stopping; None never stops early.
        held_out: base draws of each check; reference draws are two fifths of it.

    Raises:
        ValueError: a setting lies outside its range.

    Example:
        >>> TiltRecipe(objective="jensen").objective
        Jensen(penalty=0.25, calibrate=False)
    """

    objective: Objective | str = "likelihood"
    gradient_penalty: float = 0.0
    steps: int = 1500
    lr: float = 5e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-2
    batch: int = 256
    base_batch: int = 1024
    chains: int = 1024
    chain_steps: int = 10
    sampler_draws: int = 512
    every: int = 25
    patience: int | None = 12
    held_out: int = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "objective", OBJECTIVES.make(self.objective))


def fit_energy(
    energy: EnsembleEnergy,
    sides: Sides,
    recipe: TiltRecipe,
    *,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Fit every member on its folds and keep each at its best held-out score.

    .. math:: \min_{E_m}\; \mathrm{loss}\big(E_m(z_{i \notin m}),\, E_m(z_k)\big), \quad z_i \sim q_{ref},\ z_k \sim p_0

    Posterior and base draws are fresh at every step, so neither the reference draws nor the estimate of log Z can be
    overfitted; what can be, the choice of reference images, is what the held-out fold watches.

    Arguments:
        energy: fitted in place.
        sides: reference and base draws, `Codes` or `Pictures`, with at least as many folds as members.
        recipe: objective and optimizer settings.
        generator: source of all draws.
        track: shows progress.
        log: called at each check; see `latentebm.training.logs.logged`.

    Returns:
        The record; ``best`` holds (M,) held-out losses in nats.

    Raises:
        ValueError: fewer than two reference images, or sides that the objective does not suit.
        DivergedError: the loss became NaN or infinite.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.tilting.sides import Codes
        >>> rng = torch.Generator().manual_seed(0)
        >>> energy = EnergyNet(1, members=2, generator=rng)
        >>> codes = Codes.split(torch.ones(200, 1), torch.full((200, 1), 0.9), 2, rng)
        >>> result = fit_energy(energy, codes, TiltRecipe(steps=30, batch=64), generator=rng)
        >>> bool(energy(torch.tensor([[1.0]])) < energy(torch.tensor([[-1.0]])))
        True
    """
    if len(sides.fold) < 2:
        raise fail("reference", "at least 2 images", len(sides.fold), "pass more reference images")
    objective: Any = recipe.objective
    objective.check(sides)
    device = sides.fold.device
    noise = on_device(generator, device)
    training = [torch.nonzero(sides.fold != m).flatten().cpu() for m in range(energy.n_members)]
    negatives = objective.negatives(energy, sides, recipe, noise)

    def pick() -> Tensor:
        return torch.stack([own[integers(len(own), (recipe.batch,), generator, "cpu")] for own in training])

    def loss(rows: Tensor) -> Tensor:
        x, x0 = sides.draw(rows, noise), negatives()
        value = objective.value(energy, sides, rows, x, x0, noise)
        if recipe.gradient_penalty:
            value = value + recipe.gradient_penalty * _penalty(energy, x, x0, noise)
        # The sum leaves each member the gradient of its own loss.
        return value.sum()

    points, x0 = held_out_draws(sides, energy.n_members, recipe.held_out, generator)
    return fit(
        energy,
        loss,
        Picks(recipe.steps, pick, device),
        recipe,
        validate=lambda: by_fold(objective.score, energy, points, x0),
        every=recipe.every,
        patience=recipe.patience,
        noise=[noise] if objective.recorded and sides.normal else None,  # a mixture's draws differ in shape
        state=[generator, noise, *([negatives] if hasattr(negatives, "state_dict") else [])],
        data=[*points, x0],
        track=track,
        log=log,
        description="energy",
    )


def _penalty(energy: EnsembleEnergy, x: Tensor, x0: Tensor, generator: torch.Generator) -> Tensor:
    """Gradient penalty (M,) between reference draws (M, N, *event) and negatives, shared or of each member."""
    own = x0 if x0.dim() == x.dim() else x0.expand(len(x), *x0.shape)
    n = min(x.shape[1], own.shape[1])
    points = interpolates(x[:, :n], own[:, :n], generator=generator, lead=2)
    return gradient_penalty(energy.members(points), points)


def fit_members(
    energy: EnsembleEnergy,
    sides: Sides,
    recipe: TiltRecipe,
    *,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    """Fit an ensemble as `fit_energy` does, each process of the group some of its members, and gather them in all.

    Members are independent but for the moment at which early stopping ends all of one process. A process without a
    member waits.

    Raises:
        ValueError: as `fit_energy`, in every process.
        LostRankError: another process has ended or hangs.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.tilting.sides import Codes
        >>> rng = torch.Generator().manual_seed(0)
        >>> codes = Codes.split(torch.ones(200, 1), torch.full((200, 1), 0.9), 2, rng)
        >>> fit_members(EnergyNet(1, members=2), codes, TiltRecipe(steps=9, batch=64), generator=rng).best.shape
        torch.Size([2])
    """
    if processes.world() == 1:
        return fit_energy(energy, sides, recipe, generator=generator, track=track, log=log)
    own, generator = processes.share(energy.n_members), processes.own_stream(generator)

    def fit() -> tuple[dict[str, Any], list[Tensor]] | None:
        if not own:
            return None
        part = energy.part(own)
        result = fit_energy(part, _sides_of(sides, own.start), recipe, generator=generator, track=track, log=log)
        return vars(result), [p.detach().cpu() for p in part.parameters()]

    fitted = [found for found in processes.gather(processes.together(fit)) if found is not None]
    with torch.no_grad():
        for parameter, *parts in zip(energy.parameters(), *(weights for _, weights in fitted), strict=True):
            parameter.copy_(torch.cat(parts))
    return _joined([FitResult(**fields) for fields, _ in fitted])


def _sides_of(sides: Sides, first: int) -> Sides:
    """The same sides, their folds numbered from that of the first member of a part."""
    folds = int(sides.fold.max()) + 1
    return dataclasses.replace(sides, fold=(sides.fold - first) % folds)  # type: ignore[type-var]


def _joined(parts: list[FitResult]) -> FitResult:
    """The record of all members; one that stopped early stays at its last score."""
    scores: list[Tensor] = []
    for row in zip_longest(*(part.scores for part in parts)):
        found = [part.scores[-1] if score is None else score for part, score in zip(parts, row, strict=True)]
        scores.append(torch.cat([score.cpu() for score in found]))
    losses = [sum(row) for row in zip(*(part.losses for part in parts), strict=False)]
    log = [line for part in parts for line in part.log]
    best = torch.cat([part.best.cpu() for part in parts])
    return FitResult(max(p.steps for p in parts), losses, scores, best, all(p.stopped_early for p in parts), log)
