"""Fit a tilt's energy to a reference set, the generator frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.models.energy import EnergyNet
from latentebm.objectives.tilt import gain, gradient_penalty, jensen_loss, likelihood_loss
from latentebm.progress import Track, silent
from latentebm.training.fit import FitResult, fit

__all__ = ["OBJECTIVES", "Codes", "TiltRecipe", "fit_energy", "held_out_gain"]

OBJECTIVES = ("likelihood", "jensen")


@dataclass(frozen=True, kw_only=True)
class TiltRecipe:
    """How an energy is fitted.

    Attributes:
        objective: ``likelihood`` or ``jensen``.
        energy_penalty: λ of the Jensen objective, 1/nats.
        gradient_penalty: weight of the squared gradient norm on interpolates; 0 for none.
        steps: most optimizer steps.
        lr: peak learning rate.
        schedule: its course, as in `fit`.
        weight_decay: decoupled weight decay.
        batch: reference draws a step and member.
        base_batch: fresh base draws a step, K of the log Z estimate.
        every: steps between held-out checks.
        patience: checks without improvement of any member before stopping; None never stops early.

    Raises:
        ValueError: a setting lies outside its range.

    Example:
        >>> TiltRecipe(objective="jensen").energy_penalty
        0.25
    """

    objective: str = "likelihood"
    energy_penalty: float = 0.25
    gradient_penalty: float = 0.0
    steps: int = 1500
    lr: float = 5e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-2
    batch: int = 256
    base_batch: int = 1024
    every: int = 25
    patience: int | None = 12

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        check_number("energy_penalty", self.energy_penalty, low=0, open_low=True)
        check_number("gradient_penalty", self.gradient_penalty, low=0)
        for name in ("steps", "batch", "base_batch", "every"):
            check_int(name, getattr(self, name))

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """The objective (M,) of energies (M, N) and (M, K), without the gradient penalty."""
        if self.objective == "jensen":
            return jensen_loss(reference, base, energy_penalty=self.energy_penalty)
        return likelihood_loss(reference, base)


@dataclass(frozen=True)
class Codes:
    """Posterior laws of the reference images and the fold each belongs to.

    Attributes:
        mean: posterior means, (N, d).
        scale: posterior standard deviations, (N, d); zeros stand for the means alone.
        fold: number of the member that never trains on this image, (N,).

    Example:
        >>> Codes.split(torch.zeros(5, 2), torch.ones(5, 2), 5, torch.Generator()).fold.sort().values
        tensor([0, 1, 2, 3, 4])
    """

    mean: Tensor
    scale: Tensor
    fold: Tensor

    @classmethod
    def split(cls, mean: Tensor, scale: Tensor, folds: int, generator: torch.Generator) -> Codes:
        """Assign images to folds at random, as evenly as can be; one fold holds a fifth out."""
        n = len(mean)
        parts = 5 if folds == 1 else folds
        fold = torch.randperm(n, generator=generator) % min(parts, n)
        return cls(mean, scale, fold.to(mean.device))

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One posterior draw of each image of `rows`, (*rows.shape, d)."""
        noise = torch.randn((*rows.shape, self.mean.shape[1]), generator=generator).to(self.mean)
        return self.mean[rows] + self.scale[rows] * noise


def fit_energy(
    energy: EnergyNet,
    codes: Codes,
    recipe: TiltRecipe,
    *,
    base: Callable[[int], Tensor] | None = None,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Fit every member on its folds and keep each at its best held-out score.

    .. math:: \min_{E_m}\; \mathrm{loss}\big(E_m(z_{i \notin m}),\, E_m(z_k)\big), \quad z_i \sim q_{ref},\ z_k \sim p_0

    Posterior and base draws are fresh at every step, so neither the reference draws nor the estimate of log Z can be
    overfitted; what can be, the choice of reference images, is what the held-out fold watches.

    Arguments:
        energy: fitted in place.
        codes: posterior laws and folds of the reference, d dimensions, with at least as many folds as members.
        recipe: objective and optimizer settings.
        base: gives (K, d) draws of the base law where that is not N(0, I).
        generator: source of all draws (CPU).
        track: shows progress.

    Returns:
        The record; ``best`` holds (M,) held-out losses in nats.

    Raises:
        ValueError: fewer than two reference images.
        DivergedError: the loss became NaN or infinite.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> energy = EnergyNet(1, members=2, generator=rng)
        >>> codes = Codes.split(torch.ones(200, 1), torch.full((200, 1), 0.9), 2, rng)
        >>> result = fit_energy(energy, codes, TiltRecipe(steps=30, batch=64), generator=rng)
        >>> bool(energy(torch.tensor([[1.0]])) < energy(torch.tensor([[-1.0]])))
        True
    """
    if len(codes.mean) < 2:
        raise fail("reference", "at least 2 images", len(codes.mean), "pass more reference images")
    members, base = energy.n_members, base or _normal(codes, generator)
    training = [torch.nonzero(codes.fold != m).flatten() for m in range(members)]

    def loss(step: int) -> Tensor:
        picks = [rows[torch.randint(len(rows), (recipe.batch,), generator=generator)] for rows in training]
        z, z0 = codes.draw(torch.stack(picks), generator), base(recipe.base_batch)
        value = recipe.loss(energy.members(z), energy.members(z0))
        if recipe.gradient_penalty:
            value = value + recipe.gradient_penalty * _interpolate_penalty(energy, z, z0[: recipe.batch], generator)
        # The sum leaves each member the gradient of its own loss.
        return value.sum()

    points, z0 = _held_out_draws(codes, members, base, generator)
    return fit(
        energy,
        loss,
        range(recipe.steps),
        lr=recipe.lr,
        schedule=recipe.schedule,
        weight_decay=recipe.weight_decay,
        validate=lambda: _by_fold(recipe.loss, energy, points, z0),
        every=recipe.every,
        patience=recipe.patience,
        track=track,
        description="energy",
    )


def held_out_gain(
    energy: EnergyNet,
    codes: Codes,
    transform: Callable[[Tensor], Tensor] | None = None,
    *,
    base: Callable[[int], Tensor] | None = None,
    generator: torch.Generator,
) -> float:
    r"""Cross-validated gain: each member on the fold it never trained on, averaged, in nats an image.

    .. math:: \frac1M \sum_m \hat G(E_m; \text{fold } m)

    Early stopping picked each member's best state on the same fold, so the figure leans a little high.

    Arguments:
        energy: fitted ensemble.
        codes: the posterior laws and folds it was fitted with.
        transform: elementwise map of the energies, such as `calibrated`.
        base: as in `fit_energy`.
        generator: source of the draws (CPU).

    Raises:
        ValueError: codes of another length.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> codes = Codes.split(torch.zeros(10, 2), torch.ones(10, 2), 2, rng)
        >>> held_out_gain(EnergyNet(2, members=2), codes, generator=rng)
        0.0
    """
    points, z0 = _held_out_draws(codes, energy.n_members, base or _normal(codes, generator), generator)
    apply = transform or (lambda e: e)
    with torch.no_grad():
        return float(_by_fold(lambda q, p: gain(apply(q), apply(p)), energy, points, z0).mean())


def _normal(codes: Codes, generator: torch.Generator) -> Callable[[int], Tensor]:
    return lambda k: torch.randn(k, codes.mean.shape[1], generator=generator).to(codes.mean)


def _held_out_draws(
    codes: Codes,
    members: int,
    base: Callable[[int], Tensor],
    generator: torch.Generator,
    draws: int = 8192,
    base_draws: int = 20_000,
) -> tuple[list[Tensor], Tensor]:
    """Posterior draws of each fold and base draws: drawn once, so that only the energy changes a score."""
    repeats = max(1, draws // len(codes.mean))
    rows = [torch.nonzero(codes.fold == m).flatten().repeat(repeats) for m in range(members)]
    z0 = base(base_draws)
    return [codes.draw(r, generator) for r in rows], z0


def _by_fold(
    score: Callable[[Tensor, Tensor], Tensor], energy: EnergyNet, points: list[Tensor], base: Tensor
) -> Tensor:
    on_base = energy.members(base)
    return torch.stack([score(energy.members(z)[m], on_base[m]) for m, z in enumerate(points)])


def _interpolate_penalty(energy: EnergyNet, z: Tensor, z0: Tensor, generator: torch.Generator) -> Tensor:
    share = torch.rand((*z.shape[:-1], 1), generator=generator).to(z)
    points = (share * z + (1 - share) * z0[: z.shape[1]]).requires_grad_()
    return gradient_penalty(energy.members(points), points)
