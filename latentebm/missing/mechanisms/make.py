"""Apply a mechanism to data: one function for arrays, tensors and frames."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from latentebm.checks import check_number, fail
from latentebm.missing.mechanisms.columns import MAR, MCAR, SelfMasking
from latentebm.missing.mechanisms.mechanism import Mechanism, MissingDataWarning
from latentebm.missing.mechanisms.table import Table

__all__ = ["make_missing", "make_missing_values"]

Seed = int | np.random.Generator | None


def make_missing(
    X: Any, mechanism: Mechanism, rate: float | None = None, *, y: Any = None, random_state: Seed = None
) -> tuple[Any, Any]:
    r"""Remove cells of `X` by a mechanism and say which remain.

    .. math:: \mathrm{E}[1 - s_{ij}] = r \text{ over the cells the mechanism may remove}, \quad
              \tilde x_{ij} = x_{ij} \text{ where } s_{ij} = 1 \text{, else NaN}

    Cells of `X` that are NaN already stay missing (mask 0) and do not count in the rate. Integers become floats,
    since only floats hold NaN; in a DataFrame columns become what pandas makes of a missing value.

    Arguments:
        X: complete data, numpy array or torch tensor (N, …), or DataFrame of D columns; not changed.
        mechanism: decides which cells go, such as ``MCAR()`` or ``SelfMasking("probit")``.
        rate: expected share of removed cells among the columns the mechanism works on, in [0, 1); None where the
            mechanism has a strength of its own.
        y: labels (N,), for mechanisms that depend on them.
        random_state: seed or numpy generator; the same seed gives the same mask.

    Returns:
        Data of the same kind with NaN where missing, and the mask of the same kind and shape, True = 1 = observed.

    Raises:
        ValueError: the rate lies outside [0, 1) or cannot be reached, X holds infinite values or text the mechanism
            depends on, a column does not exist, or labels are missing or of another length.

    Example:
        >>> X = np.arange(6.0).reshape(3, 2)
        >>> X_missing, mask = make_missing(X, SelfMasking("hard", columns=[1]), rate=1 / 3, random_state=0)
        >>> X_missing[:, 1], mask.sum(axis=0)
        (array([ 1.,  3., nan]), array([3, 2]))
    """
    if not isinstance(mechanism, Mechanism):
        raise fail("mechanism", "a Mechanism object", repr(mechanism), "pass for example MCAR()")
    rate = None if rate is None else check_number("rate", rate, low=0, high=1, fix="pass a share of [0, 1)")
    if rate == 1:
        raise fail("rate", "a share of [0, 1)", rate, "pass a smaller one")
    table = Table(X, y)
    by_column = table.seen.copy()
    for columns, rows in mechanism.remove(table, rate, np.random.default_rng(random_state)):
        if np.shape(rows) != table.shape[:1] or np.asarray(rows).dtype != bool:
            expected = f"boolean rows of shape {table.shape[:1]} from {type(mechanism).__name__}.remove"
            raise fail("mechanism", expected, np.shape(rows), "yield True for each row to remove")
        by_column[list(columns)] &= ~rows
    mask = np.ascontiguousarray(by_column.T)
    empty = [int((~mask.any(axis=axis)).sum()) for axis in (1, 0)]
    if any(empty):
        warnings.warn("{} rows and {} columns have no observed cell left".format(*empty), MissingDataWarning, 2)
    return table.rebuild(mask)


def make_missing_values(
    X: Any, *, mcar_rate: float = 0.0, mar_rate: float = 0.0, mnar_rate: float = 0.0, random_state: Seed = None
) -> tuple[Any, Any]:
    r"""Remove cells by all three kinds at once, each taking its own share of the cells.

    .. math:: \mathrm{E}[1 - s_{ij}] = r_\mathrm{MCAR} + r_\mathrm{MAR} + r_\mathrm{MNAR}, \quad j > 0

    The first column stays complete: it drives the MAR share (logistic). The MNAR share is logistic self-masking of
    high values. Each kind works on what the one before left, with its rate of all cells.

    Data, seed and result are those of :func:`make_missing`; X (N, D) has at least two columns.

    Raises:
        ValueError: a rate lies outside [0, 1), the rates sum to 1 or more, or X has fewer than two columns.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(2000, 5))
        >>> _, mask = make_missing_values(X, mcar_rate=0.1, mar_rate=0.1, mnar_rate=0.1, random_state=0)
        >>> round(1 - float(mask[:, 1:].mean()), 1)
        0.3
    """
    given = {"mcar_rate": mcar_rate, "mar_rate": mar_rate, "mnar_rate": mnar_rate}
    rates = [check_number(name, rate, low=0, high=1) for name, rate in given.items()]
    if sum(rates) >= 1:
        raise fail("rates", "a sum below 1", sum(rates), "lower them")
    columns = Table(X).shape[1]
    if columns < 2:
        raise fail("X", "at least two columns, of which the first drives MAR", columns, "use make_missing")
    rng = np.random.default_rng(random_state)
    others, left, mask = list(range(1, columns)), 1.0, None
    for mechanism, rate in zip((MCAR(others), MAR([0], others), SelfMasking(columns=others)), rates, strict=True):
        X, mask = make_missing(X, mechanism, rate=rate / left, random_state=rng)
        left -= rate
    return X, mask
