"""Fit an energy by score matching: no chains, no normalising constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.devices import beside
from latentebm.ebm.check_energy import check_energy
from latentebm.ebm.noise import NoiseEnergy
from latentebm.objectives import score_matching as losses
from latentebm.objectives.score_matching import Projection
from latentebm.progress import Track, silent
from latentebm.rng import integers, uniform
from latentebm.training.fit import FitResult, fit
from latentebm.training.keep import Guard
from latentebm.training.logs import Log
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["ScoreRecipe", "fit_score"]

Method = Literal["denoising", "multiscale", "sliced", "exact"]


@dataclass(frozen=True, kw_only=True)
class ScoreRecipe(Optimisation):
    """How an energy is fitted by score matching; the optimizer's settings are `Optimisation`'s.

    The noise `sigma` of ``denoising``, in the data's units, is a fraction of the finest detail. For ``multiscale`` it
    is levels that fall, (L,); None draws levels log-uniformly over the energy's range.
    """

    method: Method = "denoising"
    sigma: float | Tensor | None = None
    projection: Projection = "rademacher"  # directions of ``sliced``
    reduced: bool = True  # its variance-reduced form
    scale_weight: float = 0.1  # of the loss along the level in ``multiscale``
    steps: int = 4000
    batch: int = 256  # data per step
    lr: float = 2e-3
    schedule: Schedule = "onecycle"
    clip: float | None = 10.0
    average: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = None if self.sigma is None else torch.as_tensor(self.sigma)
        if self.method == "denoising" and (levels is None or levels.ndim):
            fix = "pass for example sigma=0.1, or method='multiscale'"
            raise fail("sigma", "one noise level for denoising", self.sigma, fix)
        if levels is not None:
            losses.check_scales(levels.flatten(), sorted_down=True)


def fit_score(
    energy: nn.Module,
    data: Tensor,
    recipe: ScoreRecipe,
    *,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Fit an energy to data by one of the score-matching losses.

    .. math:: \min_\theta\; \mathrm{mean}_i\, \ell(E_\theta; x_i)

    Score matching finds the energy up to a constant, and up to one constant for each part of the data that no data
    connect: the relative mass of separate modes is only found by ``multiscale``, whose levels connect them. Losses of
    different methods differ by constants and are not comparable. The energy maps (N, d) to (N,) and is fitted in place;
    ``multiscale`` needs a :class:`~latentebm.ebm.noise.NoiseEnergy`.

    Raises:
        ValueError: the data are not finite (N, d), or the energy is not one number per point that depends on it.
        DivergedError: the loss went on being NaN or infinite; the energy holds its last good state.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> g = torch.Generator().manual_seed(0)
        >>> data = 1 + 0.5 * torch.randn(2000, 1, generator=g)
        >>> energy = EnergyNet(1, hidden=(32,), generator=g)
        >>> _ = fit_score(energy, data, ScoreRecipe(sigma=0.1, steps=300), generator=g)
        >>> with torch.no_grad():
        ...     rise = energy(torch.tensor([[1.5]])) - energy(torch.tensor([[1.0]]))
        >>> abs(rise.item() - 0.5**2 / (2 * (0.5**2 + 0.1**2))) < 0.1
        True
    """
    data = beside(energy, data)
    check_energy(energy, data, flat=True)
    of_points = _loss(energy, recipe, generator)

    def loss(_: int) -> Tensor:
        return of_points(data[integers(len(data), (recipe.batch,), generator, data.device)])

    # The guard sees losses alone: without draws there is no energy gap.
    known: dict[str, Any] = {"guard": Guard(energy), "state": [generator], "data": [data]}
    return fit(energy, loss, range(recipe.steps), recipe, **known, track=track, log=log, description="score")


def _loss(energy: nn.Module, recipe: ScoreRecipe, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    if recipe.method == "exact":
        return lambda x: losses.exact_score_matching(energy, x)
    if recipe.method == "sliced":
        along, reduced = recipe.projection, recipe.reduced
        return lambda x: losses.sliced_score_matching(energy, x, generator=generator, projection=along, reduced=reduced)
    if recipe.method == "multiscale":
        return _multiscale(energy, recipe, generator)
    level = float(torch.as_tensor(recipe.sigma))
    # Times σ² the loss is of order one, whatever the level, and so is the gradient that is clipped.
    return lambda x: level**2 * losses.denoising_score_matching(energy, x, level, generator=generator)


def _multiscale(energy: nn.Module, recipe: ScoreRecipe, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    if not isinstance(energy, NoiseEnergy):
        fix = "pass NoiseEnergy(d, low=…, high=…)"
        raise fail("energy", "a NoiseEnergy for multiscale", type(energy).__name__, fix)
    levels = None if recipe.sigma is None else torch.as_tensor(recipe.sigma).flatten()

    def draw(n: int) -> Tensor:
        if levels is not None:
            return levels[integers(len(levels), (n,), generator, levels.device)]
        share = uniform((n,), generator, energy.low)
        return energy.high**share * energy.low ** (1 - share)

    def loss(x: Tensor) -> Tensor:
        level, weight = draw(len(x)).to(x), recipe.scale_weight
        return losses.multiscale_score_matching(energy, x, level, generator=generator, scale_weight=weight)

    return loss
