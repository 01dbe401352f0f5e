"""Start a tilt at the many biased images, weighted as a small reference says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.models.energies import EnsembleEnergy
from latentebm.objectives.tilt_losses import likelihood_loss
from latentebm.progress import Track, silent
from latentebm.rng import on_device, weighted_rows
from latentebm.tilting.fit_tilt import TiltRecipe
from latentebm.tilting.sides import Codes
from latentebm.training.fit import FitResult, fit
from latentebm.training.picks import Picks

__all__ = ["fit_start"]


def fit_start(
    energy: EnsembleEnergy,
    biased: Codes,
    weight: Tensor,
    recipe: TiltRecipe,
    *,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Fit an energy to weighted codes of the biased images; every member of an ensemble may then start from it.

    .. math:: \max_E\; -\sum_i w_i\, E_{q(z|x_i)}[E(z)] \Big/ \sum_i w_i - \log Z

    A handful of reference codes says little about the shape of their distribution; weighted biased codes, of which
    there are thousands, have the same distribution where classes are all that differs, and show which parts of the
    prior no image fills.

    Arguments:
        energy: fitted in place.
        biased: posterior distributions of the biased images.
        weight: (N,), non-negative, such as the mean of :func:`latentebm.tilting.clusters.reweight.cluster_weights`.
        recipe: steps, batches and learning rate.
        generator: source of all draws.
        track: shows progress.

    Returns:
        The record of the fit.

    Raises:
        ValueError: weights of another shape.
        DivergedError: the loss became NaN or infinite.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> rng = torch.Generator().manual_seed(0)
        >>> mean, weight = torch.tensor([[-1.0], [1.0]]).repeat(50, 1), torch.tensor([0.0, 1.0]).repeat(50)
        >>> codes, energy = Codes.split(mean, torch.full_like(mean, 0.5), 1, rng), EnergyNet(1, generator=rng)
        >>> _ = fit_start(energy, codes, weight, TiltRecipe(steps=50), generator=rng)
        >>> bool(energy(mean[1:2]) < energy(mean[:1]))
        True
    """
    if weight.shape != (count := len(biased.mean),):
        raise fail("weight", f"shape ({count},)", tuple(weight.shape), "pass one weight per biased image")

    noise = on_device(generator, biased.mean.device)
    batches = Picks(recipe.steps, lambda: weighted_rows(weight, recipe.batch, generator), biased.mean.device)

    def loss(rows: Tensor) -> Tensor:
        base = biased.base(recipe.base_batch, noise)
        return likelihood_loss(energy(biased.draw(rows, noise)), energy(base))

    known: dict[str, Any] = {"state": [generator, noise], "data": [biased.mean, biased.scale, weight]}
    known["noise"] = [noise] if biased.normal else None  # a mixture's draws differ in shape
    return fit(energy, loss, batches, recipe, **known, track=track, description="start")
