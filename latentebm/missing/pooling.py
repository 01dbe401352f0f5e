"""Rubin's rules: one estimate, its interval and its degrees of freedom from several imputed tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from latentebm.checks import check_number, fail

__all__ = ["Pooled", "pool"]

Array = NDArray[np.float64]


class Pooled(NamedTuple):
    """What m completed tables say together; each field has the shape of one table's estimate, scalars are floats."""

    estimate: Array  # mean of the estimates
    se: Array  # square root of the total variance T
    df: Array  # degrees of freedom of the t distribution of (estimate − truth) / se
    low: Array  # ends of the interval
    high: Array
    missing: Array  # share of the variance due to the missing cells, in [0, 1]


def pool(
    estimates: ArrayLike | Sequence[ArrayLike], variances: ArrayLike | Sequence[ArrayLike], *, df: float = math.inf,
    level: float = 0.95,
) -> Pooled:  # fmt: skip
    r"""Pool the estimates Q of m completed tables and their variances W by Rubin's rules.

    .. math:: T = \bar W + (1 + \tfrac1m) B, \quad B = \mathrm{var}(Q_1, …, Q_m), \quad \lambda = (1 + \tfrac1m) B / T

              \nu = \Big(\frac{1}{\nu_m} + \frac{1}{\nu_{obs}}\Big)^{-1}, \quad \nu_m = (m - 1) / \lambda^2, \quad
              \nu_{obs} = \frac{\nu_0 + 1}{\nu_0 + 3}\,\nu_0 (1 - \lambda)

    The rules ask that the copies also show how unsure the fitted parameters are, as those of
    :meth:`MIWAEImputer.multiple` do.

    Arguments:
        estimates: of each table, (m,) or (m, …), m ≥ 2.
        variances: squared standard error of each, in the same shape.
        df: degrees of freedom that a complete table would leave, :math:`\nu_0`: n − 1 of a mean of n rows, n − p of a
            regression with p coefficients.
        level: of the interval, in (0, 1).

    Raises:
        ValueError: fewer than 2 tables, shapes that differ, NaN, or negative variances.

    References:
        Multiple imputation for nonresponse in surveys (Rubin, 1987);
        Small-sample degrees of freedom with multiple imputation (Barnard and Rubin, 1999)

    Example:
        >>> pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], df=59)
        >>> [round(float(v), 3) for v in (pooled.estimate, pooled.se, pooled.df, pooled.missing)]
        [2.0, 1.354, 3.042, 0.727]
    """
    q, w = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if q.ndim < 1 or len(q) < 2 or q.shape != w.shape:
        fix = "pass one estimate and one variance for each of at least 2 tables"
        raise fail("estimates", "m ≥ 2 estimates, and variances of their shape", f"{q.shape} and {w.shape}", fix)
    if not (np.isfinite(q).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise fail("variances", "finite numbers of at least 0", "others", "pass squared standard errors")
    check_number("df", df, low=0, open_low=True)
    check_number("level", level, low=1e-9, high=1 - 1e-9)
    m = len(q)
    within, between = w.mean(0), (1 + 1 / m) * q.var(0, ddof=1)
    total = within + between
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    nu = _freedom(share, m, df)
    half = student.ppf(0.5 + level / 2, nu) * np.sqrt(total)
    centre = q.mean(0)
    return Pooled(centre, np.sqrt(total), nu, centre - half, centre + half, share)


def _freedom(share: Array, m: int, complete: float) -> Array:
    """Barnard and Rubin's degrees of freedom: those of m copies and those of the cells observed, in parallel."""
    with np.errstate(divide="ignore"):
        copies = (m - 1) / np.square(share)
    if math.isinf(complete):
        return copies
    seen = (complete + 1) / (complete + 3) * complete * (1 - share)
    with np.errstate(divide="ignore"):
        return 1 / (1 / copies + 1 / seen)
