"""Step functions of one direction of features after another, while held-out reference items gain."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import softmax

from latentebm.tilting.few.directions import LEARNED_FROM, Dictionary
from latentebm.tilting.few.share_ratios import TINY, Array, binned_heights, edges_of, heights

__all__ = ["FORMS", "Found", "Step", "step_fit"]

# Bins of a score and pseudo-items towards the model's share of each: coarse and shrunk, to fine.
FORMS = ((3, 1.0), (5, 1.0), (10, 2.0), (10, 0.5))
ROUNDS = 6  # directions at most


@dataclass(frozen=True)
class Step:
    """A direction, and a step function of its score."""

    direction: Array  # (F,)
    edges: Array  # (K − 1,)
    heights: Array  # (K,)

    def of(self, scores: Array) -> Array:
        """Heights (N,) at scores (N,)."""
        return self.heights[np.searchsorted(self.edges, scores)]


@dataclass
class Found:
    """Steps of a fit, their sum at the draws, and what held-out reference items gained in all."""

    steps: list[Step] = field(default_factory=list)
    log_weight: Array = field(default_factory=lambda: np.zeros(0))
    held: Array = field(default_factory=lambda: np.zeros(0))


def step_fit(dictionary: Dictionary, reference: Array, fold: Array, form: tuple[int, float]) -> Found:
    """Steps along one direction after another, while held-out items gain."""
    found = Found([], np.zeros(len(dictionary.scores)), np.zeros(len(reference)))
    for _ in range(ROUNDS):
        step, held = _round(dictionary, reference, fold, form, softmax(found.log_weight))
        if held.mean() <= held.std() / np.sqrt(len(held)):
            break
        found.steps.append(step)
        found.held += held
        found.log_weight = found.log_weight + step.of(_scores(dictionary, step.direction))
    return found


def _round(
    dictionary: Dictionary, reference: Array, fold: Array, form: tuple[int, float], weight: Array
) -> tuple[Step, Array]:
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
        gains.append(heights(counts, share, form[1])[fold, where])
    return np.stack(gains, 1)


def _direction(dictionary: Dictionary, gains: Array) -> Array:
    """The mean of the directions within one standard error of the best, (F,)."""
    best = int(gains.mean(0).argmax())
    behind = gains[:, [best]] - gains
    near = behind.mean(0) <= behind.std(0) / np.sqrt(len(gains))
    scores = dictionary.scores[:LEARNED_FROM]
    signs = np.where(scores.T @ scores[:, best] < 0, -1.0, 1.0)
    direction = (dictionary.directions * signs)[:, near].mean(1)
    return direction / max(float((scores[:, near] * signs[near]).mean(1).std()), TINY)


def _step(dictionary: Dictionary, direction: Array, reference: Array, form: tuple[int, float], weight: Array) -> Step:
    bins, shrinkage = form
    scores = _scores(dictionary, direction)
    edges = edges_of(scores, bins)
    return Step(direction, edges, binned_heights(reference @ direction, scores, edges, weight, shrinkage))


def _scores(dictionary: Dictionary, direction: Array) -> Array:
    """Scores (N,) of the draws along a direction (F,), by those of the dictionary, which spans all of them."""
    mixture = np.linalg.lstsq(dictionary.directions, direction, rcond=None)[0]
    return np.asarray(dictionary.scores @ mixture)
