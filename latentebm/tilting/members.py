"""The fit of an ensemble's members by several processes."""

from __future__ import annotations

import dataclasses
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from latentebm import processes
from latentebm.models.energies import EnsembleEnergy
from latentebm.progress import Track, silent
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.sides import Sides
from latentebm.training.fit import FitResult

__all__ = ["fit_members"]


def fit_members(
    energy: EnsembleEnergy, sides: Sides, recipe: TiltRecipe, *, generator: torch.Generator, track: Track = silent
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
        return fit_energy(energy, sides, recipe, generator=generator, track=track)
    own, generator = processes.share(energy.n_members), processes.own_stream(generator)

    def fit() -> tuple[dict[str, Any], list[Tensor]] | None:
        if not own:
            return None
        part = energy.part(own)
        result = fit_energy(part, _for(sides, own.start), recipe, generator=generator, track=track)
        return vars(result), [p.detach().cpu() for p in part.parameters()]

    fitted = [found for found in processes.gather(processes.together(fit)) if found is not None]
    with torch.no_grad():
        for parameter, *parts in zip(energy.parameters(), *(weights for _, weights in fitted), strict=True):
            parameter.copy_(torch.cat(parts))
    return _joined([FitResult(**fields) for fields, _ in fitted])


def _for(sides: Sides, first: int) -> Sides:
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
