"""A tilt of features to few reference items: directions from the model's own draws, shares from the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from latentebm.checks import check_int
from latentebm.models.seen.step_energy import RAMP, StepEnergy
from latentebm.rng import child, draw_seed
from latentebm.tilting.few.directions import Array, Dictionary
from latentebm.tilting.few.ridge import Lean, lean
from latentebm.tilting.few.steps import FORMS, Found, step_fit

__all__ = ["pursue"]

REPEATS, STRENGTHS = 12, np.linspace(1.0, 1.8, 17)
WEIGHED = 10_000  # draws that stand for the model


def pursue(real: Tensor, made: Tensor, *, folds: int = 5, generator: torch.Generator) -> StepEnergy:
    r"""Fit an energy of features to few reference items, or none where held-out items reject it.

    .. math:: E(\phi) = -\lambda \Big( \theta^\top A^\top \phi + \sum_r h_r(v_r^\top \phi) \Big), \qquad
        h_r = \log \frac{\text{share of the reference in a bin of } v_r^\top\phi}{\text{the draws' share in it}}

    The model's many draws say which directions exist. Two kinds of fit compete. The steady one (`lean`) is linear in
    the draws' first principal components, penalised where they vary little, with steps along that direction. The other
    (`step_fit`) has steps alone, along features, means of features that go together and components, one after another:
    it finds what is no matter of more or less, and replaces the steady one where held-out items gain by more than a
    standard error. Where neither gains more than its standard error, there is no tilt. As an uncertain direction falls
    short of the truth, a parametric bootstrap measures by how much (references drawn from the fitted tilt, fitted
    again), and the strength λ in [1, 1.8] makes up for it.

    Arguments:
        real: features of the reference, (M, F).
        made: features of draws of the model, (N, F).
        folds: of the reference.

    Returns:
        The energy; without a direction where no tilt gains more than its standard error.

    References:
        Projection Pursuit Density Estimation (Friedman et al., 1984); An Introduction to the Bootstrap (Efron and
        Tibshirani, 1993)

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
    whole = made[:WEIGHED].double().cpu().numpy()
    dictionary = Dictionary.of(whole)
    mean, axes = dictionary.mean, dictionary.axes
    draws, reference = whole - mean, real.double().cpu().numpy() - mean
    fold = rng.permutation(len(real)) % min(check_int("folds", folds, low=2), len(real))
    steady = lean(reference, draws, axes, fold)
    fits = [(step_fit(dictionary, reference, fold, form), form) for form in FORMS]
    steps, form = max(fits, key=lambda f: f[0].held.sum())
    if _gains(steady.held) and not _gains(steps.held - steady.held):

        def leaned(items: Array) -> Array:
            return lean(items, draws, axes, fold, (steady.penalty,)).at(draws)

        return _leaning(mean, steady, _strength(draws, steady.at(draws), leaned, len(real), rng)).to(made.device)
    strength = 1.0
    if steps.steps:
        strength = _strength(
            draws, steps.log_weight, lambda x: step_fit(dictionary, x, fold, form).log_weight, len(real), rng
        )
    return _stepping(mean, steps, strength).to(made.device)


def _gains(held: Array) -> bool:
    """Whether held-out items gain by more than the standard error."""
    return bool(held.mean() > _error(held))


def _error(held: Array) -> float:
    return float(held.std() / np.sqrt(len(held)))


def _strength(
    draws: Array, log_weight: Array, fit: Callable[[Array], Array], size: int, rng: np.random.Generator
) -> float:
    """The strength at which tilts fitted to draws of a tilt favour on average what that tilt favours."""
    weight = softmax(log_weight)
    again = [fit(draws[rng.choice(len(draws), size, p=weight)]) for _ in range(REPEATS)]
    reached = [np.mean([softmax(s * other) @ log_weight for other in again]) for s in STRENGTHS]
    return float(STRENGTHS[int(np.abs(np.array(reached) - weight @ log_weight).argmin())])


def _leaning(mean: Array, found: Lean, strength: float) -> StepEnergy:
    """A ramp from the draws' lowest score to their highest, and steps along the same direction."""
    (low, high), count = found.ends, len(found.edges)
    ramp = np.eye(1, count)[0] * found.slope * (high - low)
    edges, jumps = np.stack([np.full(count, low), found.edges]), np.stack([ramp, np.diff(found.heights)])
    directions = np.stack([found.direction] * 2, 1)
    return _energy(mean, directions, edges, strength * jumps, np.array([high - low, RAMP]), found.held)


def _stepping(mean: Array, found: Found, strength: float) -> StepEnergy:
    count = len(found.steps)
    bins = len(found.steps[0].heights) if count else 1
    directions = np.array([step.direction for step in found.steps]).reshape(count, len(mean)).T
    edges = np.array([step.edges for step in found.steps]).reshape(count, bins - 1)
    jumps = strength * np.array([np.diff(step.heights) for step in found.steps]).reshape(count, bins - 1)
    return _energy(mean, directions, edges, jumps, np.full(count, RAMP), found.held)


def _energy(mean: Array, directions: Array, edges: Array, jumps: Array, widths: Array, held: Array) -> StepEnergy:
    m, d, e, j, w = (torch.from_numpy(value.copy()) for value in (mean, directions, edges, jumps, widths))
    return StepEnergy(m, d, e, j, gain=float(held.mean()), gain_se=_error(held), widths=w)
