"""What is measured on tables: targets with intervals, marginals and associations beside real rows, and copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from scipy.stats import norm

from latentebm.checks import check_int
from latentebm.tables.column_codes import matches
from latentebm.tables.moments_of_rows import Rows
from latentebm.tables.parity import Parity
from latentebm.tables.targets import Mean, Share, Target, said

__all__ = ["Measured", "association_distance", "marginal_distances", "measured", "nearness", "parity_gap"]

BINS = 20  # of a number column's marginal, by quantiles of the real rows
COARSE = 8  # of its pairwise associations
Z = float(norm.ppf(0.975))
Array = NDArray[np.float64]


class Measured(NamedTuple):
    """A quantity of a table, its 95 % interval, and what a target wants; None where it wants nothing."""

    name: str
    value: float
    low: float
    high: float
    wanted: float | None = None


def parity_gap(
    table: pd.DataFrame, outcome: Any, by: Any, *, within: Any = None, given: Any = None, draws: int = 500,
    seed: int = 0,
) -> Measured:  # fmt: skip
    r"""Largest difference of an outcome's share between two groups, with a bootstrap interval.

    .. math:: \sum_o P(o) \max_{y, a, b} |P(y \mid a, o) - P(y \mid b, o)|

    Without strata o (`within`) there is one. Groups that a stratum lacks are left out of it.

    Example:
        >>> table = pd.DataFrame({"y": ["+", "-"] * 50 + ["-"] * 100, "a": ["M"] * 100 + ["F"] * 100})
        >>> parity_gap(table, "y", "a").value
        0.5
    """
    for column, value in (given or {}).items():
        table = table[matches(table[column], value)]
    parts = [c for c in (within, outcome, by) if c is not None]
    numbers = [pd.factorize(table[c], use_na_sentinel=False)[0] for c in parts]
    shape = tuple(int(x.max()) + 1 if len(x) else 1 for x in numbers)
    counts = np.zeros((1, *shape) if within is None else shape)
    np.add.at(counts, tuple(numbers if within is not None else [np.zeros(len(table), int), *numbers]), 1)
    again = np.random.default_rng(seed).multinomial(
        len(table), counts.ravel() / counts.sum(), size=check_int("draws", draws)
    )
    found = np.array([_gap(c.reshape(counts.shape)) for c in again])
    value = _gap(counts)
    # A gap of noisy shares is above that of the shares: the basic bootstrap interval takes the excess off.
    low, high = 2 * value - np.quantile(found, [0.975, 0.025])
    name = f"gap of {outcome} by {by}" + (f" within {within}" if within is not None else "")
    return Measured(name, value, max(0.0, float(low)), min(1.0, max(0.0, float(high))))


def _gap(counts: Array) -> float:
    """Gap of counts (O, Y, A)."""
    groups = counts.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(groups > 0, counts / groups, np.nan)
    there = (groups > 0).sum(2)[:, 0] > 0
    high, low = np.nanmax(shares[there], axis=2), np.nanmin(shares[there], axis=2)
    weight = counts[there].sum((1, 2))
    return float(((high - low).max(1) * weight).sum() / weight.sum())


def measured(table: pd.DataFrame, target: Target, reference: pd.DataFrame | None = None) -> list[Measured]:
    """A target's quantities in a table.

    Example:
        >>> measured(pd.DataFrame({"a": ["x", "y"] * 50}), Share("a", {"x": 0.4}))[0].value
        0.5
    """
    if isinstance(target, Parity):
        gap = parity_gap(table, target.outcome, target.by, within=target.within, given=target.given)
        return [gap._replace(wanted=target.at_most)]
    rows = Rows(table)
    held = rows.holds(getattr(target, "given", None) or {})
    if isinstance(target, Mean):
        x = table.loc[held, target.column].to_numpy(dtype=np.float64, na_value=np.nan)
        mean, se = float(np.nanmean(x)), float(np.nanstd(x)) / max(1, np.isfinite(x).sum()) ** 0.5
        return [Measured(f"mean of {target.column}", mean, mean - Z * se, mean + Z * se, target.value)]
    if not isinstance(target, Share):
        return []
    given = target.given or {}
    cells = target.cells(None if reference is None else Rows(reference))
    return [_share(said(cell, given), rows.holds({**given, **cell})[held], share) for cell, share in cells]


def _share(name: str, held: NDArray[np.bool_], wanted: float) -> Measured:
    """A share with Wilson's interval."""
    n, p = max(1, len(held)), float(held.mean()) if len(held) else 0.0
    centre, width = (p + Z**2 / (2 * n)), Z * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5
    scale = 1 + Z**2 / n
    return Measured(name, p, (centre - width) / scale, (centre + width) / scale, wanted)


def marginal_distances(real: pd.DataFrame, made: pd.DataFrame) -> dict[Any, float]:
    r"""Total variation of each column, numbers in 20 quantile bins of the real rows.

    .. math:: \tfrac12 \sum_k |p_k - q_k|

    Example:
        >>> marginal_distances(pd.DataFrame({"a": ["x", "y"]}), pd.DataFrame({"a": ["x", "x"]}))
        {'a': 0.5}
    """
    found = {}
    for column in real.columns:
        a, b, size = _bins(real[column], made[column], BINS)
        p, q = (np.bincount(x, minlength=size) / len(x) for x in (a, b))
        found[column] = 0.5 * float(np.abs(p - q).sum())
    return found


def association_distance(real: pd.DataFrame, made: pd.DataFrame) -> float:
    r"""Mean absolute difference of Cramér's V over all pairs of columns, numbers in 8 bins.

    Example:
        >>> real = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["x", "y"] * 50})
        >>> round(association_distance(real, real.assign(b=["x", "x", "y", "y"] * 25)), 1)
        1.0
    """
    binned = [_bins(real[c], made[c], COARSE) for c in real.columns]
    pairs = [(x, y) for i, x in enumerate(binned) for y in binned[:i]]
    differences = [abs(_cramer(x[0], y[0]) - _cramer(x[1], y[1])) for x, y in pairs]
    return float(np.mean(differences)) if pairs else 0.0


def _cramer(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    counts = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(counts, (a, b), 1)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    n, (rows, columns) = counts.sum(), counts.shape
    expected = np.outer(counts.sum(1), counts.sum(0)) / n
    phi = float(((counts - expected) ** 2 / expected).sum() / n)
    # Bias of a sample without association (Bergsma, 2013).
    phi = max(0.0, phi - (rows - 1) * (columns - 1) / (n - 1))
    return (phi / max(1, min(rows, columns) - 1)) ** 0.5


def nearness(
    real: pd.DataFrame, unseen: pd.DataFrame, made: pd.DataFrame, *, rows: int = 1000, seed: int = 0
) -> dict[str, float]:  # fmt: skip
    """Whether made rows lie nearer to the rows that were learned from than to as many unseen ones.

    The distance of two rows is the mean over columns of 1 for other categories and of the difference of numbers as a
    share of their range (Gower, 1971).

    Returns:
        ``nearer``: share of made rows nearer to a learned row, one half without copying; ``copies``: share that equal
        a learned row in every column, and ``copies_unseen``: share of unseen rows that do, which chance makes equal;
        ``median``: median distance to the nearest learned row, and ``median_unseen``: that of unseen rows.

    Example:
        >>> real = pd.DataFrame({"a": range(40)})
        >>> nearness(real[::2], real[1::2], real[::2])["copies"]
        1.0
    """
    rng = np.random.default_rng(seed)
    size = min(len(real), len(unseen))

    def some(table: pd.DataFrame, n: int) -> pd.DataFrame:
        return table.iloc[rng.permutation(len(table))[:n]]

    learned, other, drawn = some(real, size), some(unseen, size), some(made, rows)
    to_learned, to_other = _nearest(drawn, learned), _nearest(drawn, other)
    rest = _nearest(some(unseen, rows), learned)
    ties = to_learned == to_other
    return {
        "nearer": float(((to_learned < to_other) + 0.5 * ties).mean()),
        "copies": float(_copied(made, real)),
        "copies_unseen": float(_copied(unseen, real)),
        "median": float(np.median(to_learned)),
        "median_unseen": float(np.median(rest)),
    }


def _copied(rows: pd.DataFrame, real: pd.DataFrame) -> float:
    known = set(pd.util.hash_pandas_object(real, index=False).tolist())
    return float(np.mean([key in known for key in pd.util.hash_pandas_object(rows, index=False)]))


def _nearest(rows: pd.DataFrame, real: pd.DataFrame) -> Array:
    """Distance (N,) of each row to the nearest of the real ones."""
    distance = np.zeros((len(rows), len(real)), dtype=np.float32)
    for column in real.columns:
        if _is_number(real[column]):
            a, b = _numbers(rows[column]), _numbers(real[column])
            low, high = np.nanquantile(b, [0.01, 0.99]) if np.isfinite(b).any() else (0.0, 1.0)
            gap = np.abs(a[:, None] - b).astype(np.float32) / max(high - low, 1e-12)
            distance += np.where(np.isnan(a)[:, None] & np.isnan(b), 0.0, np.nan_to_num(np.minimum(gap, 1), nan=1.0))
        else:
            both = pd.factorize(pd.concat([rows[column].astype(object), real[column].astype(object)]))[0]
            distance += both[: len(rows), None] != both[len(rows) :]
    return (distance.min(1) / real.shape[1]).astype(np.float64)


def _bins(real: pd.Series, made: pd.Series, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Bin numbers of real and of made cells, and how many bins there are; missing cells are one."""
    if _is_number(real):
        parts = [_numbers(real), _numbers(made)]
        seen = parts[0][~np.isnan(parts[0])]
        edges = np.unique(np.quantile(seen, np.linspace(0, 1, bins + 1)[1:-1])) if len(seen) else np.zeros(0)
        a, b = (np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x, side="left")) for x in parts)
        return a, b, len(edges) + 2
    both = pd.factorize(pd.concat([real.astype(object), made.astype(object)]), use_na_sentinel=False)[0]
    return both[: len(real)], both[len(real) :], int(both.max()) + 1


def _is_number(cells: pd.Series) -> bool:
    kind = cells.dtype
    number = types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind)
    return bool(number or types.is_datetime64_any_dtype(kind) or types.is_timedelta64_dtype(kind))


def _numbers(cells: pd.Series) -> Array:
    if types.is_numeric_dtype(cells.dtype):
        return cells.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(cells.isna(), np.nan, cells.astype("int64").to_numpy(dtype=np.float64))


def mean_distance(distances: dict[Any, float], but: Sequence[Any] = ()) -> float:
    """Mean of the columns' distances, without some columns."""
    kept = [d for column, d in distances.items() if column not in but]
    return float(np.mean(kept)) if kept else 0.0
