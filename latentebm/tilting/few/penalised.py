"""Log-weights linear in some columns, by penalised likelihood of a reference against draws."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, softmax

from latentebm.tilting.few.share_ratios import TINY, Array

__all__ = ["held_out_gains", "most_likely"]

NEWTON, TRUST = 30, 2.0  # steps at most, and the change of the log-weight's standard deviation in one


def most_likely(mean: Array, made: Array, penalty: float, start: Array | None = None) -> Array:
    r"""The maximum θ (J,) of a reference's likelihood, less a ridge, by Newton's steps, halved until they gain.

    .. math:: \max_\theta\; \theta^\top \bar c - \log \mathrm{mean}_j\, e^{\theta^\top c_j}
        - \tfrac{\rho}{2} |\theta|^2

    Arguments:
        mean: c̄, of the reference's columns, (J,).
        made: c, columns of the model's draws, (N, J).
        penalty: ρ.
        start: of the steps; None for zero.

    References:
        Performance Guarantees for Regularized Maximum Entropy Density Estimation (Dudík et al., 2004)

    Example:
        >>> made = np.random.default_rng(0).normal(size=(100_000, 1))
        >>> most_likely(np.array([0.6]), made, penalty=0.2).round(1)  # a shift by 0.6, over 1 + ρ
        array([0.5])
    """
    theta = np.zeros(made.shape[1]) if start is None else start
    for _ in range(NEWTON):
        weight = softmax(made @ theta)
        drawn = weight @ made
        spread = (made * weight[:, None]).T @ made - np.outer(drawn, drawn)
        step = np.linalg.solve(spread + penalty * np.eye(len(theta)), mean - drawn - penalty * theta)
        length = min(1.0, TRUST / max(float(np.sqrt(max(step @ spread @ step, 0.0))), TINY))
        now = _penalised(theta, mean, made, penalty)
        while length > TINY and _penalised(theta + length * step, mean, made, penalty) < now - TINY:
            length /= 2  # far from the maximum its curvature says little
        theta = theta + length * step
        if np.abs(made @ step).max() < 1e-4:
            break
    return theta


def _penalised(theta: Array, mean: Array, made: Array, penalty: float) -> float:
    """What is maximised."""
    return float(theta @ mean - logsumexp(made @ theta) - penalty / 2 * theta @ theta)


def held_out_gains(real: Array, made: Array, fold: Array, pseudo: float, start: Array, strength: float = 1.0) -> Array:
    """What each reference item gains, (M,) nats, by a fit without its fold and with `pseudo` items of penalty."""
    held = np.zeros(len(real))
    for f in range(fold.max() + 1):
        out = fold == f
        theta = strength * most_likely(real[~out].mean(0), made, pseudo / (~out).sum(), start)
        held[out] = real[out] @ theta - (logsumexp(made @ theta) - np.log(len(made)))
    return held
