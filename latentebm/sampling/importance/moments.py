"""Weights nearest to given ones under which features have wanted means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOUND", "moment_weights"]

BOUND = 30.0  # nats: no pool is large enough for greater log-ratios; targets out of reach end here
Array = NDArray[np.float64]


def moment_weights(
    features: Array, wanted: Array, *, at_least: NDArray[np.bool_] | None = None, log_base: Array | None = None,
    tolerance: float = 1e-4,
) -> tuple[Array, Array]:  # fmt: skip
    r"""Natural parameters θ (F,) and the means (F,) they give, of the weights nearest in KL to the base weights.

    .. math:: w_i \propto b_i\, e^{\theta^\top f_i}, \qquad
              \theta = \arg\min_\theta\; \log \sum_i b_i\, e^{\theta^\top f_i} - \theta^\top t

    At the minimum of this convex dual :math:`\sum_i w_i f_i = t`. Where `at_least` holds, θ ≥ 0 and the mean is at
    least its t, with θ = 0 if the base weights are there already (Karush, Kuhn and Tucker). Features are (N, F), wanted
    means (F,), the base's log-weights (N,); means out of reach end at |θ| = 30, near the closest that can be had.

    References:
        I-divergence geometry of probability distributions and minimization problems (Csiszár, 1975); Entropy balancing
        (Hainmueller, 2012), https://doi.org/10.1093/pan/mpr025

    Example:
        >>> theta, mean = moment_weights(np.array([[0.0], [0.0], [1.0]]), np.array([0.5]))
        >>> round(float(theta[0]), 3), round(float(mean[0]), 3)  # the odds rise from 1:2 to 1:1, by log 2
        (0.693, 0.5)
    """
    from scipy.optimize import minimize  # here, since scipy takes half a second
    from scipy.special import logsumexp, softmax

    start = np.zeros(len(features)) if log_base is None else log_base - logsumexp(log_base)

    def dual(theta: Array) -> tuple[float, Array]:
        score = start + features @ theta
        return float(logsumexp(score) - theta @ wanted), softmax(score) @ features - wanted

    one_sided = np.zeros(len(wanted), bool) if at_least is None else at_least
    bounds = [(0.0 if low else -BOUND, BOUND) for low in one_sided]
    options = {"gtol": tolerance / 100, "ftol": 1e-12}
    theta = minimize(dual, np.zeros(len(wanted)), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return np.asarray(theta), np.asarray(softmax(start + features @ theta) @ features)
