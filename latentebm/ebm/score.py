"""Fit an energy by score matching: no chains, no normalising constant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from latentebm.checks import check_choice, check_int, check_points, fail
from latentebm.ebm.maximum_likelihood import check_depends
from latentebm.models.noise import NoiseEnergy
from latentebm.objectives.score_matching import (
    check_scales,
    denoising_score_matching,
    exact_score_matching,
    multiscale_score_matching,
    sliced_score_matching,
)
from latentebm.progress import Track, silent
from latentebm.training.fit import FitResult, fit
from latentebm.training.guard import Guard

__all__ = ["METHODS", "fit_score"]

METHODS = ("denoising", "multiscale", "sliced", "exact")


def fit_score(
    energy: nn.Module,
    data: Tensor,
    *,
    method: str = "denoising",
    sigma: float | Tensor | None = None,
    projection: str = "rademacher",
    reduced: bool = True,
    scale_weight: float = 0.1,
    steps: int = 4000,
    batch: int = 256,
    lr: float = 2e-3,
    clip: float | None = 10.0,
    average: float = 0.99,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Fit an energy to data by one of the score-matching losses.

    .. math:: \min_\theta\; \mathrm{mean}_i\, \ell(E_\theta; x_i)

    Score matching finds the energy up to a constant, and up to one constant for each part of the data that no data
    connect: the relative mass of separate modes is only found by ``multiscale``, whose levels connect them.

    Arguments:
        energy: maps (N, d) to (N,), fitted in place; a :class:`~latentebm.models.noise.NoiseEnergy` for
            ``multiscale``.
        data: (N, d).
        method: ``denoising``, ``multiscale``, ``sliced`` or ``exact``.
        sigma: noise of ``denoising``, in the data's units: a fraction of the finest detail. For ``multiscale``, levels
            that fall, (L,); None draws levels log-uniformly over the energy's range.
        projection: directions of ``sliced``, ``rademacher`` or ``gaussian``.
        reduced: the variance-reduced form of ``sliced``.
        scale_weight: weight of the loss along the level in ``multiscale``.
        steps: optimizer steps.
        batch: data a step.
        lr: peak learning rate, after a warm-up and before a cosine to zero.
        clip: bound of the gradient's norm, or none.
        average: decay of the moving average of the parameters that the fit ends with; 0 for the last ones.
        generator: source of batches and noise (CPU).
        track: shows progress.

    Returns:
        The record of the fit. Losses of different methods differ by constants and are not comparable.

    Raises:
        ValueError: the data are not finite (N, d), a level is not positive, levels do not fall, the method does not
            suit the energy, or the energy does not depend on x.
        DivergedError: the loss went on being NaN or infinite; the energy holds its last good state.

    References:
        How to train your energy-based models (Song and Kingma, 2021), https://arxiv.org/abs/2101.03288

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> g = torch.Generator().manual_seed(0)
        >>> data = 1 + 0.5 * torch.randn(2000, 1, generator=g)
        >>> energy = EnergyNet(1, hidden=(32,), generator=g)
        >>> _ = fit_score(energy, data, sigma=0.1, steps=300, generator=g)
        >>> with torch.no_grad():
        ...     rise = energy(torch.tensor([[1.5]])) - energy(torch.tensor([[1.0]]))
        >>> abs(rise.item() - 0.5**2 / (2 * (0.5**2 + 0.1**2))) < 0.1
        True
    """
    if data.ndim != 2 or not len(data):
        raise fail("data", "shape (N, d)", tuple(data.shape), "flatten each point")
    check_points("data", data)
    check_choice("method", method, METHODS)
    check_depends(energy, data[:256])
    if (shape := energy(data[:2]).shape) != data[:2, 0].shape:
        raise fail("energy", "shape (N,)", tuple(shape), "return one energy a point, for example .squeeze(-1)")
    for name, value in (("steps", steps), ("batch", batch)):
        check_int(name, value)
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "exact": lambda x: exact_score_matching(energy, x),
        "sliced": lambda x: sliced_score_matching(
            energy, x, generator=generator, projection=projection, reduced=reduced
        ),
    }
    if method == "denoising":
        losses[method] = _denoising(energy, sigma, generator)
    elif method == "multiscale":
        losses[method] = _multiscale(energy, sigma, scale_weight, generator)

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(data), (batch,), generator=generator)
        return losses[method](data[rows.to(data.device)])

    # The guard sees losses alone here: there are no draws whose energy could part from the data's.
    settings = {"lr": lr, "schedule": "onecycle", "clip": clip, "average": average, "guard": Guard(energy)}
    return fit(energy, loss, range(steps), **settings, track=track, description="score")  # type: ignore[arg-type]


def _denoising(
    energy: nn.Module, sigma: float | Tensor | None, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    if sigma is None or torch.as_tensor(sigma).ndim:
        raise fail(
            "sigma", "one noise level for denoising", sigma, "pass for example sigma=0.1, or method='multiscale'"
        )
    level = float(check_scales(torch.as_tensor(sigma)))
    # Times σ² the loss is of order one, whatever the level, and so is the gradient that is clipped.
    return lambda x: level**2 * denoising_score_matching(energy, x, level, generator=generator)


def _multiscale(
    energy: nn.Module, sigma: float | Tensor | None, scale_weight: float, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    if not isinstance(energy, NoiseEnergy):
        raise fail(
            "energy", "a NoiseEnergy for multiscale", type(energy).__name__, "pass NoiseEnergy(d, low=…, high=…)"
        )
    ends = torch.stack([energy.high, energy.low]).cpu()
    levels = None if sigma is None else check_scales(torch.as_tensor(sigma).flatten(), sorted_down=True)

    def draw(n: int) -> Tensor:
        if levels is not None:
            return levels[torch.randint(len(levels), (n,), generator=generator)]
        share = torch.rand(n, generator=generator)
        return ends[0] ** share * ends[1] ** (1 - share)

    def loss(x: Tensor) -> Tensor:
        at = draw(len(x)).to(x)
        return multiscale_score_matching(energy, x, at, generator=generator, scale_weight=scale_weight)

    return loss
