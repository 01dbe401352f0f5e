"""A tilt of features to few reference items: directions from the model's own draws, shares from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentebm.checks import check_int
from latentebm.models.seen.step_energy import StepEnergy
from latentebm.rng import child, draw_seed

__all__ = ["Dictionary", "pursue"]

Array = NDArray[Any]
# Bins of a score and pseudo-items towards the model's share of each: coarse and shrunk, to fine.
FORMS = ((3, 1.0), (5, 1.0), (10, 2.0), (10, 0.5))
ROUNDS, COMPONENTS, MOST = 6, 12, 256  # directions at most; components; features that are grouped, not only rotated
REPEATS, STRENGTHS = 8, np.linspace(1.0, 1.6, 13)
LEARNED_FROM, WEIGHED = 4_000, 10_000  # draws that directions are learned from, and that stand for the model
TINY = 1e-9


@dataclass(frozen=True)
class Dictionary:
    """Directions in features that the model's own draws suggest: each feature, groups of like ones, components.

    Attributes:
        mean: of the features, (F,).
        directions: in columns, (F, J), whose scores have unit standard deviation.
        scores: of the draws, (N, J).

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(500, 3))
        >>> Dictionary.of(draws).directions.shape  # three features, two groups, three components
        (3, 8)
    """

    mean: Array
    directions: Array
    scores: Array
    _binned: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    @classmethod
    def of(cls, draws: Array) -> Dictionary:
        """The dictionary of draws' features (N, F); beyond 256 features it holds components alone."""
        mean, scale = draws.mean(0), draws.std(0)
        used = scale > 1e-6 * scale.max()
        unit = np.where(used, 1 / np.where(used, scale, 1), 0)
        standard = ((draws - mean) * unit)[:LEARNED_FROM]
        groups = _groups(standard, np.flatnonzero(used)) if used.sum() <= MOST else []
        columns = [*groups, *_components(standard, COMPONENTS if groups else 64)]
        directions = unit[:, None] * np.stack(columns, 1)
        scores = (draws - mean) @ directions
        spread = np.maximum(scores.std(0), TINY)
        return cls(mean, directions / spread, scores / spread)

    def binned(self, bins: int) -> tuple[Array, Array]:
        """Edges (K − 1, J) of bins with equal shares of the draws, and the bin of every score (N, J); made once."""
        if bins not in self._binned:
            edges = np.quantile(self.scores, np.arange(1, bins) / bins, axis=0)
            where = [np.searchsorted(e, s) for e, s in zip(edges.T, self.scores.T, strict=True)]
            self._binned[bins] = edges, np.stack(where, 1)
        return self._binned[bins]


def _groups(standard: Array, used: Array) -> list[Array]:
    """Means of features that go together, from each by itself to all, by average linkage of correlations."""
    members: list[list[int]] = [[int(j)] for j in used]
    if len(used) > 1:
        from scipy.cluster.hierarchy import linkage  # here, since scipy takes half a second

        for a, b, *_ in linkage(standard[:, used].T, "average", metric="correlation"):
            members.append(members[int(a)] + members[int(b)])
    return [np.isin(np.arange(standard.shape[1]), group).astype(float) for group in members]


def _components(standard: Array, count: int) -> list[Array]:
    values, vectors = np.linalg.eigh(standard.T @ standard)
    kept = values[::-1][:count] > 1e-9 * values[-1]
    return list(vectors[:, ::-1][:, :count][:, kept].T)


@dataclass(frozen=True)
class _Step:
    """A direction, and a step function of its score."""

    direction: Array  # (F,)
    edges: Array  # (K − 1,)
    heights: Array  # (K,)

    def of(self, scores: Array) -> Array:
        return self.heights[np.searchsorted(self.edges, scores)]


@dataclass
class _Found:
    """Steps of a fit, their sum at the draws, and what held-out reference items gained in all."""

    steps: list[_Step] = field(default_factory=list)
    log_weight: Array = field(default_factory=lambda: np.zeros(0))
    held: Array = field(default_factory=lambda: np.zeros(0))


def pursue(real: Tensor, made: Tensor, *, folds: int = 5, generator: torch.Generator) -> StepEnergy:
    r"""Fit an energy of features to few reference items, or none where held-out items reject it.

    .. math:: E(\phi) = -\lambda \sum_r h_r(v_r^\top \phi), \qquad
        h_r = \log \frac{\text{share of the reference in a bin of } v_r^\top\phi}{\text{the draws' share in it}}

    The model's many draws say which directions exist: each feature, means of features that go together, and principal
    components. Every direction is tried by the gain of held-out reference items, and those within one standard error of
    the best are averaged, which is closer to the truth than any of them. A further direction, and finer bins, are taken
    only where held-out items gain by more than the standard error. As shares in few bins of an uncertain direction
    fall short of the truth, a parametric bootstrap measures by how much (references drawn from the fitted tilt, fitted
    again), and the strength λ in [1, 1.6] makes up for it.

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
    draws = made[:WEIGHED].double().cpu().numpy()
    dictionary = Dictionary.of(draws)
    reference = real.double().cpu().numpy() - dictionary.mean
    n, m = len(draws), len(real)
    fold = rng.permutation(m) % min(check_int("folds", folds, low=2), m)
    best, form = max(((_fit(dictionary, reference, fold, form), form) for form in FORMS), key=lambda f: f[0].held.sum())
    strength = 1.0
    if best.steps:
        weight = _softmax(best.log_weight)
        again = [
            _fit(dictionary, (draws - dictionary.mean)[rng.choice(n, m, p=weight)], fold, form) for _ in range(REPEATS)
        ]
        strength = _strength(best.log_weight, [found.log_weight for found in again])
    return _energy(dictionary, best, strength).to(made.device)


def _fit(dictionary: Dictionary, reference: Array, fold: Array, form: tuple[int, float]) -> _Found:
    """Steps along one direction after another, while held-out items gain."""
    found = _Found([], np.zeros(len(dictionary.scores)), np.zeros(len(reference)))
    for _ in range(ROUNDS):
        step, held = _round(dictionary, reference, fold, form, _softmax(found.log_weight))
        if held.mean() <= held.std() / np.sqrt(len(held)):
            break
        found.steps.append(step)
        found.held += held
        found.log_weight = found.log_weight + step.of(_scores(dictionary, step.direction))
    return found


def _round(
    dictionary: Dictionary, reference: Array, fold: Array, form: tuple[int, float], weight: Array
) -> tuple[_Step, Array]:
    """The best step function beside those that made the draws' weights (N,), and held-out gains (M,)."""
    gains = _gains(dictionary, reference, fold, form, weight)
    held = np.zeros(len(reference))
    for f in range(fold.max() + 1):
        train = fold != f
        step = _step(dictionary, _direction(dictionary, gains[train]), reference[train], form, weight)
        held[~train] = step.of(reference[~train] @ step.direction)
    return _step(dictionary, _direction(dictionary, gains), reference, form, weight), held


def _gains(dictionary: Dictionary, reference: Array, fold: Array, form: tuple[int, float], weight: Array) -> Array:
    """Held-out gains (M, J) of every reference item along every direction."""
    bins, gains, scores = form[0], [], reference @ dictionary.directions
    edges, drawn = dictionary.binned(bins)
    for j in range(scores.shape[1]):
        share = np.bincount(drawn[:, j], weight, bins)
        where = np.searchsorted(edges[:, j], scores[:, j])
        counts = np.stack([np.bincount(where[fold != f], minlength=bins) for f in range(fold.max() + 1)])
        gains.append(_heights(counts, share, form[1])[fold, where])
    return np.stack(gains, 1)


def _heights(counts: Array, share: Array, shrinkage: float) -> Array:
    """Log-ratios (…, K) of the reference's shares to the draws', of mean weight one."""
    share = np.maximum(share, TINY) / np.maximum(share, TINY).sum()
    pseudo = shrinkage * len(share)
    ratio = (counts + pseudo * share) / (counts.sum(-1, keepdims=True) + pseudo) / share
    return np.log(ratio / (share * ratio).sum(-1, keepdims=True))


def _direction(dictionary: Dictionary, gains: Array) -> Array:
    """The mean of the directions within one standard error of the best, (F,)."""
    best = int(gains.mean(0).argmax())
    behind = gains[:, [best]] - gains
    near = behind.mean(0) <= behind.std(0) / np.sqrt(len(gains))
    scores = dictionary.scores[:LEARNED_FROM]
    signs = np.where(scores.T @ scores[:, best] < 0, -1.0, 1.0)
    direction = (dictionary.directions * signs)[:, near].mean(1)
    return direction / max(float((scores[:, near] * signs[near]).mean(1).std()), TINY)


def _step(dictionary: Dictionary, direction: Array, reference: Array, form: tuple[int, float], weight: Array) -> _Step:
    bins, shrinkage = form
    scores = _scores(dictionary, direction)
    edges = np.quantile(scores, np.arange(1, bins) / bins)
    share = np.bincount(np.searchsorted(edges, scores), weight, bins)
    counts = np.bincount(np.searchsorted(edges, reference @ direction), minlength=bins)
    return _Step(direction, edges, _heights(counts, share, shrinkage))


def _scores(dictionary: Dictionary, direction: Array) -> Array:
    """Scores (N,) of the draws along a direction (F,), by those of the dictionary, which spans all of them."""
    mixture = np.linalg.lstsq(dictionary.directions, direction, rcond=None)[0]
    return np.asarray(dictionary.scores @ mixture)


def _strength(log_weight: Array, again: Sequence[Array]) -> float:
    """The strength at which tilts fitted to draws of a tilt favour on average what that tilt favours."""
    wanted = _softmax(log_weight) @ log_weight
    reached = [np.mean([_softmax(s * other) @ log_weight for other in again]) for s in STRENGTHS]
    return float(STRENGTHS[int(np.abs(np.array(reached) - wanted).argmin())])


def _softmax(a: Array) -> Array:
    w = np.exp(a - a.max())
    return np.asarray(w / w.sum())


def _energy(dictionary: Dictionary, found: _Found, strength: float) -> StepEnergy:
    count, features = len(found.steps), len(dictionary.mean)
    bins = len(found.steps[0].heights) if count else 1
    stack = {
        "mean": dictionary.mean,
        "directions": np.array([step.direction for step in found.steps]).reshape(count, features).T,
        "edges": np.array([step.edges for step in found.steps]).reshape(count, bins - 1),
        "jumps": strength * np.array([np.diff(step.heights) for step in found.steps]).reshape(count, bins - 1),
    }
    gain, se = found.held.mean(), found.held.std() / np.sqrt(len(found.held))
    return StepEnergy(**{k: torch.from_numpy(v.copy()) for k, v in stack.items()}, gain=float(gain), gain_se=float(se))
