"""What codes a column gets, learned from its cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from latentebm.checks import fail
from latentebm.tables.column_codes import Column, numbers

__all__ = ["MOST_CODES", "learn_column"]

MOST_CODES = 500  # of one column: with more categories most are too rare to learn
STANDALONE = 100  # distinct numbers up to which each may be a code of its own
SPIKE = 0.01  # share of the cells from which a number is a code of its own, such as the zeros of a capital gain
INTERVALS = 32  # most intervals of a column's other numbers
CELLS = 40  # that each interval holds at least
KNOTS = 17  # quantiles kept of each interval
DECIMALS = 6  # of a float column that is rounded like its input

Array = NDArray[np.float64]


def learn_column(name: Any, cells: pd.Series) -> Column:
    """The codes of one column, learned from its cells.

    Raises:
        ValueError: infinite or mixed cells, or too many categories.
    """
    missing, seen = bool(cells.isna().any()), cells.dropna()
    kind = column_kind(name, cells)
    if kind == "category":
        values = _sorted(seen)
        if len(values) > MOST_CODES:
            fix = "group the rare ones, or leave the column out"
            raise fail("table", f"at most {MOST_CODES} categories in {name!r}", f"{len(values):,}", fix)
        return Column(name, kind, cells.dtype, values, missing=missing)
    x = numbers(name, seen)
    alone, knots = _spikes_and_intervals(x)
    whole = kind == "date" or types.is_integer_dtype(cells.dtype)
    grain, origin = _grain(x) if whole else (0.0, 0.0)
    decimals = None if whole else next((d for d in range(DECIMALS) if np.array_equal(np.round(x, d), x)), None)
    return Column(name, kind, cells.dtype, alone, knots, grain, origin, decimals, missing)


def column_kind(name: Any, cells: pd.Series) -> str:
    """``category``, ``number`` or ``date``, by the dtype; object columns must hold one type throughout."""
    dtype = cells.dtype
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return "date"
    if isinstance(dtype, pd.CategoricalDtype) or types.is_bool_dtype(dtype):
        return "category"
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return "number"
    made_of = pd.api.types.infer_dtype(cells, skipna=True)
    if made_of in ("string", "boolean", "empty"):
        return "category"
    if made_of in ("date", "datetime"):
        fix = f"convert it: table[{name!r}] = table[{name!r}].astype('datetime64[s]')"
        raise fail("table", f"dates of {name!r} as datetime64", "Python objects", fix)
    kinds = sorted({type(v).__name__ for v in cells.dropna()})
    raise fail("table", f"one type in column {name!r}", " and ".join(kinds), "convert it to numbers or to text")


def _sorted(seen: pd.Series) -> tuple[Any, ...]:
    values = seen.astype(object).unique().tolist()
    return tuple(sorted(values, key=lambda v: (str(type(v)), v)))


def _spikes_and_intervals(x: Array) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    values, counts = np.unique(x, return_counts=True)
    least = max(2.0, SPIKE * len(x)) if len(values) > STANDALONE or len(x) < CELLS * len(values) else 0.0
    alone = values[counts >= least] if len(x) else np.zeros(1)
    rest = x[~np.isin(x, alone)]
    if not len(rest):
        return tuple(alone.tolist()), ()
    count = int(np.clip(len(rest) // CELLS, 1, INTERVALS))
    # Between equal quantiles an interval would be empty: distinct edges only.
    edges = np.unique(np.quantile(rest, np.linspace(0, 1, count + 1)))
    edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    group = np.searchsorted(edges[1:-1], rest, side="left")
    parts = [rest[group == b] for b in range(len(edges) - 1)]
    knots = [np.quantile(part, np.linspace(0, 1, KNOTS)) for part in parts if len(part)]
    return tuple(alone.tolist()), tuple(tuple(k.tolist()) for k in knots)


def _grain(x: Array) -> tuple[float, float]:
    """Step and origin of the grid that a column's whole numbers lie on."""
    if not len(x):
        return 1.0, 0.0
    steps = np.diff(np.unique(x)).astype(np.int64)
    return float(np.gcd.reduce(steps)) if len(steps) else 1.0, float(x.min())
