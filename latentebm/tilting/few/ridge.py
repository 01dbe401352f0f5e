"""A tilt along one direction of features, by penalised likelihood: steady where the reference is small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from latentebm.tilting.few.directions import LEARNED_FROM, TINY, Array
from latentebm.tilting.few.share_ratios import binned_heights

__all__ = ["Lean", "lean"]

PER_BIN, BINS, SHRINKAGE = 20, (5, 10), 1.0  # items; bins of the score at least and at most; pseudo-items in each
PENALTIES = (0.3, 0.1, 0.03, 0.01)
NEWTON, TRUST = 30, 2.0  # steps at most, and the change of the log-weight's standard deviation in one


@dataclass(frozen=True)
class Lean:
    """A log-weight that is linear in one score, with steps beside.

    Attributes:
        direction: of the score, (F,), which has unit standard deviation.
        slope: of the log-weight, nats per standard deviation.
        ends: the draws' lowest and highest score, beyond which nothing changes.
        edges: of the bins, (K − 1,).
        heights: of the steps, (K,).
        penalty: that held-out items chose.
        held: held-out gains of the linear part, (M,).
    """

    direction: Array
    slope: float
    ends: tuple[float, float]
    edges: Array
    heights: Array
    penalty: float
    held: Array

    def at(self, features: Array) -> Array:
        """Log-weights (N,) of centred features (N, F)."""
        scores = features @ self.direction
        return np.asarray(self.slope * scores + self.heights[np.searchsorted(self.edges, scores)])


def lean(reference: Array, draws: Array, axes: Array, fold: Array, penalties: Sequence[float] = PENALTIES) -> Lean:
    r"""Fit a direction to few reference items by ridge-penalised likelihood, and steps along it.

    .. math:: \max_\theta\; \mathrm{mean}_i\, \theta^\top A^\top\phi_i
        - \log \mathrm{mean}_j\, e^{\theta^\top A^\top\phi_j} - \tfrac{\rho}{2} |\theta|^2

    As the columns of A keep their spread, the penalty falls on the components along which the model's draws vary least.
    Held-out items choose ρ. The steps are shares of the reference in five to ten bins of the score, to those of draws
    weighted by the linear part; each item is scored by a direction fitted without it, so that chance makes no steps.

    Arguments:
        reference: features of the reference less the draws' mean, (M, F).
        draws: the same of the model's draws, (N, F).
        axes: A, (F, K), see `Dictionary`.
        fold: of every reference item, (M,).
        penalties: among which ρ is chosen.

    References:
        Performance Guarantees for Regularized Maximum Entropy Density Estimation (Dudík et al., 2004)
    """
    real, made = reference @ axes, draws @ axes
    fits = [_crossed(real, made[:LEARNED_FROM], fold, penalty) for penalty in penalties]
    best = int(np.argmax([held.mean() for held, _ in fits]))
    (held, scored), theta = fits[best], _theta(real.mean(0), made[:LEARNED_FROM], penalties[best])
    spread = max(float((made @ theta).std()), TINY)
    scores = made @ theta / spread
    bins = min(max(len(real) // PER_BIN, BINS[0]), BINS[1])
    edges = np.quantile(scores, np.arange(1, bins) / bins)
    heights = binned_heights(scored, scores, edges, softmax(spread * scores), SHRINKAGE)
    ends = (float(scores.min()), float(scores.max()))
    return Lean(axes @ theta / spread, spread, ends, edges, heights, penalties[best], held)


def _crossed(real: Array, made: Array, fold: Array, penalty: float) -> tuple[Array, Array]:
    """Held-out gains and standardised scores (M,) of items, each by a direction fitted without its fold."""
    held, scored = np.zeros(len(real)), np.zeros(len(real))
    for f in range(fold.max() + 1):
        out = fold == f
        theta = _theta(real[~out].mean(0), made, penalty)
        drawn = made @ theta
        held[out] = real[out] @ theta - (logsumexp(drawn) - np.log(len(made)))
        scored[out] = (real[out] @ theta) / max(float(drawn.std()), TINY)
    return held, scored


def _theta(mean: Array, made: Array, penalty: float) -> Array:
    """The penalised likelihood's maximum (K,), by Newton's steps of bounded length."""
    theta = np.zeros(made.shape[1])
    for _ in range(NEWTON):
        weight = softmax(made @ theta)
        drawn = weight @ made
        spread = (made * weight[:, None]).T @ made - np.outer(drawn, drawn)
        step = np.linalg.solve(spread + penalty * np.eye(len(theta)), mean - drawn - penalty * theta)
        theta = theta + step * min(1.0, TRUST / max(float(np.sqrt(max(step @ spread @ step, 0.0))), TINY))
        if np.abs(step).max() < 1e-6:
            break
    return theta
