"""A tilt of features to few reference items: cells or directions from the model's draws, shares from the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from latentebm.checks import check_int
from latentebm.models.seen.cell_energy import CellEnergy
from latentebm.models.seen.step_energy import StepEnergy
from latentebm.rng import child, draw_seed
from latentebm.tilting.few.cell_fit import KEPT, CellFit, effective, gains, standard_error
from latentebm.tilting.few.cells import Cells
from latentebm.tilting.few.directions import LEARNED_FROM, Dictionary
from latentebm.tilting.few.share_ratios import Array
from latentebm.tilting.few.steps import FORMS, Found, step_fit

__all__ = ["pursue"]

REPEATS, STRENGTHS = 24, np.linspace(1.0, 2.5, 31)
SHARP = 8  # clusterings whose hard cells stand for the truth's
SHOWN = 0.1  # nats by which the energy of steps may be off on average
AHEAD = 2.0  # standard errors by which steps must lead


def pursue(real: Tensor, made: Tensor, *, folds: int = 5, generator: torch.Generator) -> CellEnergy | StepEnergy:
    r"""Fit an energy of features to few reference items, or none where held-out items reject it.

    .. math:: E(\phi) = -\lambda \sum_r \sum_c h_{rc}\, u_{rc}(\phi), \qquad
        \max_h\; \mathrm{mean}_i \sum_{rc} h_{rc} u_{rc}(\phi_i)
        - \log \mathrm{mean}_j\, e^{\sum_{rc} h_{rc} u_{rc}(\phi_j)} - \frac{a}{2M} R \sum_{rc} p_{rc} h_{rc}^2

    The model's many draws say which cells exist: R = 8 clusterings by k-means into twenty cells each, whose memberships
    u are soft (`Cells`). The reference says how much each weighs: so much that the tilted draws have its shares, but
    for a penalty that is worth a items at the draws' shares p. Of a in 64, 32, 16, 8, 4 the least is taken by which
    held-out items gain more than their standard error. What differs within cells, such as real pictures from drawn
    ones, has little part in it.

    Another fit competes, for what is sharp along one direction: steps along features, means of features that go
    together and components, one after another (`step_fit`). It replaces the cells where held-out items gain more by it,
    by two standard errors, at no more than half of the effective draws: a large gain on few draws says that features
    tell real from generated. Where neither gains more than its standard error, there is no tilt.

    Penalties, chance, and cells that do not end where the truth does make a fit fall short of it. A parametric
    bootstrap measures by how much: references are drawn from tilts like the fitted one but of sharp borders, constant
    in each of as many hard cells of clusterings that the fit does not know, and fitted again. The strength λ in
    [1, 2.5] makes up for it on average. It costs likelihood, since shares without bias are not those of the likeliest
    weights; where held-out items would lose more than their standard error by it, or half of the effective draws
    would go, it is less.

    Arguments:
        real: features of the reference, (M, F).
        made: features of draws of the model, (N, F).
        folds: of the reference.

    Returns:
        The energy; of `limit` 0 where no tilt gains more than its standard error.

    References:
        Performance Guarantees for Regularized Maximum Entropy Density Estimation (Dudík et al., 2004); Projection
        Pursuit Density Estimation (Friedman et al., 1984); An Introduction to the Bootstrap (Efron and Tibshirani,
        1993)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> made = torch.randn(5000, 4, generator=rng)
        >>> above, below = made[made[:, 0] > 0.84][:50], made[made[:, 0] < 0.84][:50]
        >>> energy = pursue(torch.cat([above, below]), made[1000:], generator=rng)
        >>> weight = (-energy(made)).softmax(0)  # a fifth of the draws lies above
        >>> 0.4 < float(weight[made[:, 0] > 0.84].sum()) < 0.65
        True
    """
    rng = np.random.default_rng(draw_seed(child(generator)))
    draws, reference = (x.double().cpu().numpy() for x in (made[:LEARNED_FROM], real))
    fold = rng.permutation(len(real)) % min(check_int("folds", folds, low=2), len(real))
    cells = CellFit.of(Cells.of(draws, rng), draws, reference, fold)
    dictionary = Dictionary.of(draws)
    mean = dictionary.mean
    fits = [(step_fit(dictionary, reference - mean, fold, form), form) for form in FORMS]
    steps, form = max(fits, key=lambda f: f[0].held.sum())
    if _replaces(steps, cells) and _shown(mean, steps, draws):
        strength = _strength(
            draws, [steps.log_weight], lambda x: step_fit(dictionary, x - mean, fold, form).log_weight, len(real), rng
        )
        return _stepping(mean, steps, strength).to(made.device)
    if not gains(cells.held):
        return cells.energy(0.0).to(made.device)
    sharp = [cells.cells.sharpened(draws, cells.log_weight, rng) for _ in range(SHARP)]
    strength = _strength(draws, sharp, cells.again, len(real), rng)
    return cells.energy(cells.accepted(strength, reference, fold)).to(made.device)


def _replaces(steps: Found, cells: CellFit) -> bool:
    """Whether steps are clearly better than cells, and no collapse."""
    if not steps.steps or not gains(steps.held - cells.best, AHEAD):
        return False
    return effective(steps.log_weight) >= KEPT * effective(cells.log_weight)


def _shown(mean: Array, steps: Found, draws: Array) -> bool:
    """Whether the energy's ramps give the draws the steps' log-weights: not where features crowd at 0 or 1."""
    log_weight = -_stepping(mean, steps, 1.0)(torch.from_numpy(draws)).double().numpy()
    apart = log_weight - steps.log_weight
    return float(np.abs(apart - np.median(apart)).mean()) < SHOWN


def _strength(
    draws: Array, truths: list[Array], fit: Callable[[Array], Array], size: int, rng: np.random.Generator
) -> float:
    """The strength at which tilts fitted to draws of tilts, of these log-weights, favour on average what those do."""
    short = np.zeros(len(STRENGTHS))
    for i in range(REPEATS):
        truth = truths[i % len(truths)]
        weight = softmax(truth)
        again = fit(draws[rng.choice(len(draws), size, p=weight)])
        short += weight @ truth - np.array([softmax(s * again) @ truth for s in STRENGTHS])
    return float(STRENGTHS[int(np.abs(short).argmin())])


def _stepping(mean: Array, found: Found, strength: float) -> StepEnergy:
    directions = np.stack([step.direction for step in found.steps], 1)
    edges = np.stack([step.edges for step in found.steps])
    jumps = strength * np.stack([np.diff(step.heights) for step in found.steps])
    m, d, e, j = (torch.from_numpy(value) for value in (mean, directions, edges, jumps))
    return StepEnergy(m, d, e, j, gain=float(found.held.mean()), gain_se=standard_error(found.held))
