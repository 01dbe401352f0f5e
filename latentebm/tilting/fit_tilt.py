"""Fit a tilt's energy to a reference set, the generator frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.objectives.contrast import contrastive_loss
from latentebm.objectives.gradient_penalty import gradient_penalty
from latentebm.objectives.tilt_losses import (
    jensen_loss,
    likelihood_loss,
    nce_loss,
    posterior_score_loss,
)
from latentebm.progress import Track, silent
from latentebm.tilting.held_out import Energy, by_fold, held_out_draws
from latentebm.tilting.negatives import NEGATIVES, LearnedNegatives, Negatives
from latentebm.tilting.sides import Codes, Sides
from latentebm.training.fit import FitResult, fit
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["OBJECTIVES", "TiltRecipe", "fit_energy"]

OBJECTIVES = ("likelihood", "jensen", "nce", "contrastive", "score", "amortized")
UNSCORED = ("contrastive", "score", "amortized")  # whose value does not tell one energy from a better one


@dataclass(frozen=True, kw_only=True)
class TiltRecipe(Optimisation):
    """How an energy is fitted; `Optimisation` says what lr, schedule, clip, weight_decay and average are.

    Attributes:
        objective: ``likelihood``, ``jensen``, ``nce``, ``contrastive``, ``score`` (denoising score matching of codes
            whose noise is the posterior's) or ``amortized`` (contrastive against a sampler learned along).
        energy_penalty: λ of the Jensen objective, 1/nats.
        gradient_penalty: weight of the squared gradient norm on interpolates; 0 for none.
        steps: most optimizer steps.
        batch: reference draws a step and member.
        base_batch: base draws a step, K of the log Z estimate; for contrastive, chains; for amortized, draws
            of each member's sampler.
        negatives: where the contrastive objective's chains start: ``persistent`` or ``prior``.
        chain_steps: their steps between two of the optimizer's.
        chain_step: their step size.
        sampler_moves: optimizer steps of the learned sampler between two of the energy's.
        sampler_lr: its learning rate.
        sampler_noise: standard deviation of its noise, in units of the prior.
        every: steps between held-out checks.
        patience: checks without improvement of any member before stopping; None never stops early.
        held_out: base draws of each check; reference draws are two fifths of it.

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
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-2
    batch: int = 256
    base_batch: int = 1024
    negatives: str = "persistent"
    chain_steps: int = 10
    chain_step: float = 0.05
    sampler_moves: int = 1
    sampler_lr: float = 2e-3
    sampler_noise: float = 0.1
    every: int = 25
    patience: int | None = 12
    held_out: int = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("negatives", self.negatives, NEGATIVES)
        check_number("energy_penalty", self.energy_penalty, low=0, open_low=True)
        for name in ("chain_step", "sampler_lr", "sampler_noise"):
            check_number(name, getattr(self, name), low=0, open_low=True)
        check_number("gradient_penalty", self.gradient_penalty, low=0)
        for name in ("steps", "batch", "base_batch", "chain_steps", "sampler_moves", "every", "held_out"):
            check_int(name, getattr(self, name))

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """The objective (M,) of energies (M, N) and (M, K), without the gradient penalty."""
        if self.objective == "jensen":
            return jensen_loss(reference, base, energy_penalty=self.energy_penalty)
        if self.objective in ("contrastive", "amortized"):
            return contrastive_loss(reference, base)
        return (nce_loss if self.objective == "nce" else likelihood_loss)(reference, base)

    def score(self, reference: Tensor, base: Tensor) -> Tensor:
        """Held-out score (M,): the objective, or where its value says nothing or too little, the likelihood."""
        return likelihood_loss(reference, base) if self.objective in UNSCORED else self.loss(reference, base)


def fit_energy(
    energy: Energy, sides: Sides, recipe: TiltRecipe, *, generator: torch.Generator, track: Track = silent
) -> FitResult:
    r"""Fit every member on its folds and keep each at its best held-out score.

    .. math:: \min_{E_m}\; \mathrm{loss}\big(E_m(z_{i \notin m}),\, E_m(z_k)\big), \quad z_i \sim q_{ref},\ z_k \sim p_0

    Posterior and base draws are fresh at every step, so neither the reference draws nor the estimate of log Z can be
    overfitted; what can be, the choice of reference images, is what the held-out fold watches. The contrastive
    and amortized objectives take draws of each member's own model in place of base draws, from chains or from a
    sampler learned along; score matching needs none.

    Arguments:
        energy: fitted in place.
        sides: reference and base draws, `Codes` or `Pictures`, with at least as many folds as members.
        recipe: objective and optimizer settings.
        generator: source of all draws (CPU).
        track: shows progress.

    Returns:
        The record; ``best`` holds (M,) held-out losses in nats.

    Raises:
        ValueError: fewer than two reference images, or sides that the objective does not suit: contrastive, score and
            amortized need a Gaussian base, score posterior laws that spread.
        DivergedError: the loss became NaN or infinite.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

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
    _check_suits(sides, recipe.objective)
    training = [torch.nonzero(sides.fold != m).flatten() for m in range(energy.n_members)]
    negatives = _negatives(energy, sides, recipe, generator)

    def loss(step: int) -> Tensor:
        picks = [rows[torch.randint(len(rows), (recipe.batch,), generator=generator)] for rows in training]
        rows = torch.stack(picks)
        x, x0 = sides.draw(rows, generator), negatives()
        if recipe.objective == "score":
            value = posterior_score_loss(energy.members, *_laws(sides, rows), generator=generator)
        else:
            value = recipe.loss(energy.members(x), energy.members(x0))
        if recipe.gradient_penalty:
            value = value + recipe.gradient_penalty * _interpolate_penalty(energy, x, x0, generator)
        # The sum leaves each member the gradient of its own loss.
        return value.sum()

    points, x0 = held_out_draws(sides, energy.n_members, recipe.held_out, generator)
    return fit(
        energy,
        loss,
        range(recipe.steps),
        recipe,
        validate=lambda: by_fold(recipe.score, energy, points, x0),
        every=recipe.every,
        patience=recipe.patience,
        track=track,
        description="energy",
    )


def _negatives(energy: Energy, sides: Sides, recipe: TiltRecipe, generator: torch.Generator) -> Callable[[], Tensor]:
    """What stands against the reference: base draws, shared by the members, or each member's own."""
    if recipe.objective not in ("contrastive", "amortized"):
        return lambda: sides.base(recipe.base_batch, generator)
    model = energy.members, sides.decode, (energy.n_members, sides.dim)
    like = next(energy.parameters()).detach()
    if recipe.objective == "amortized":
        return LearnedNegatives(
            *model,
            draws=recipe.base_batch,
            moves=recipe.sampler_moves,
            lr=recipe.sampler_lr,
            noise=recipe.sampler_noise,
            like=like,
            generator=generator,
        ).draw
    return Negatives(
        *model,
        chains=recipe.base_batch,
        start=recipe.negatives,
        steps=recipe.chain_steps,
        step=recipe.chain_step,
        like=like,
        generator=generator,
    ).draw


def _check_suits(sides: Sides, objective: str) -> None:
    """Check that what an objective takes for granted is so."""
    codes = sides if isinstance(sides, Codes) else None
    if objective == "score" and (codes is None or not bool((codes.scale > 0).all())):
        raise fail("objective", "another than score without posterior draws of codes", "score", "pass likelihood")
    if objective in UNSCORED and codes is not None and codes.drawn is not None:
        fix = "pass likelihood, jensen or nce"
        raise fail("objective", "one that takes the base by its draws alone, as they are given", objective, fix)


def _laws(sides: Sides, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior means and standard deviations of reference codes, (*rows.shape, d)."""
    codes = cast(Codes, sides)
    return codes.mean[rows], codes.scale[rows]


def _interpolate_penalty(energy: Energy, x: Tensor, x0: Tensor, generator: torch.Generator) -> Tensor:
    k, members, event = min(x.shape[1], x0.shape[1 - x.dim()]), len(x), x.dim() - 2
    share = torch.rand((members, k, *[1] * event), generator=generator).to(x)
    base = x0[:, :k] if x0.dim() == x.dim() else x0[:k]
    points = (share * x[:, :k] + (1 - share) * base).requires_grad_()
    return gradient_penalty(energy.members(points), points)
