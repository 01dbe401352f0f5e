"""One column of a table as codes: categories, numbers that stand alone, intervals of numbers, and a missing cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from latentebm.checks import fail

__all__ = ["Column", "is_missing", "matches", "numbers", "typed"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """How the cells of one column become codes 0 … size − 1 and back.

    The codes are first the `values`, then the intervals, then the missing cell. A cell within an interval lies at a
    position v of [0, 1): its value is the interval's quantile function at v, piecewise linear between its knots (B, K).

    Example:
        >>> from latentebm.tables.learn_column import learn_column
        >>> age = learn_column("age", pd.Series([30, 30, 41, None], dtype="Int64"))
        >>> age.encode(pd.Series([41, None, 30], dtype="Int64")), age.size
        (array([1, 2, 0]), 3)
        >>> age.decode(np.array([2, 0]), np.zeros(2)).tolist()
        [<NA>, 30]
    """

    name: Any
    kind: str  # category, number or date
    dtype: Any  # of the input
    values: tuple[Any, ...]  # categories, or numbers that stand alone
    knots: tuple[tuple[float, ...], ...] = ()
    grain: float = 0.0  # whole numbers are its multiples, counted from `origin`; 0 for floats
    origin: float = 0.0
    decimals: int | None = None  # that floats are rounded to; None for any number
    missing: bool = False

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.values) + len(self.knots) + self.missing

    @property
    def labels(self) -> list[str]:
        """What each code stands for, in words."""
        parts = [f"{self._shown(k[0])} to {self._shown(k[-1])}" for k in self.knots]
        shown = self.values if self.kind == "category" else map(self._shown, self.values)
        return [*map(str, shown), *parts, *(["missing"] if self.missing else [])]

    def encode(self, cells: pd.Series) -> NDArray[np.int64]:
        """Codes (N,) of cells; numbers beyond the range take the nearest code.

        Raises:
            ValueError: a category or a missing cell where the fit saw none, or other than numbers in a number column.
        """
        gone = cells.isna().to_numpy()
        if gone.any() and not self.missing:
            raise fail("table", f"no missing cell in {self.name!r}, as in fit", int(gone.sum()), "fill or drop them")
        codes = np.full(len(cells), self.size - 1, dtype=np.int64)
        seen = cells[~gone]
        codes[~gone] = self._categories(seen) if self.kind == "category" else self._numbers(numbers(self.name, seen))
        return codes

    def decode(self, codes: NDArray[np.int64], position: Array) -> pd.Series:
        """Cells of the input's dtype from codes (N,) and positions (N,) within their intervals."""
        gone = (codes == self.size - 1) & self.missing
        if self.kind == "category":
            cells = np.empty(self.size, dtype=object)
            cells[: len(self.values)] = self.values
            filled = pd.Series(cells[codes], dtype=object)
            return filled.where(~gone, None if self.dtype == object else pd.NA).astype(self.dtype)
        found = self._value(np.where(gone, 0, codes), position)
        return typed(found, gone, self.dtype, self.kind)

    def allowed(self, value: Any) -> NDArray[np.bool_]:
        """Codes (C,) that may stand for a cell with a value, a ``pd.Interval``, one of a list, or None for missing.

        Raises:
            ValueError: no code does.
        """
        found = self._allowed(value)
        if not found.any():
            shown = ", ".join(self.labels[:10])
            raise fail("where", f"a value of {self.name!r} that was seen in fit", repr(value), f"pass one of {shown}")
        return found

    def _allowed(self, value: Any) -> NDArray[np.bool_]:
        if isinstance(value, list | set | tuple):
            return np.any([self._allowed(v) for v in value], axis=0)
        codes = np.arange(self.size)
        low, high = self.decode(codes, np.zeros(self.size)), self.decode(codes, np.ones(self.size))
        found = matches(low, value) | matches(high, value)
        if self.knots and not is_missing(value):
            left, right = (value.left, value.right) if isinstance(value, pd.Interval) else (value, value)
            found |= ((low <= right) & (high >= left)).fillna(False).to_numpy(dtype=bool)
        return found

    def _value(self, codes: NDArray[np.int64], position: Array) -> Array:
        alone = np.array([*map(float, self.values), *[0.0] * max(1, len(self.knots))])
        found = alone[np.minimum(codes, len(alone) - 1)]
        inside = codes >= len(self.values)
        if self.knots and inside.any():
            found[inside] = self._within(codes[inside] - len(self.values), position[inside])
        if self.grain:
            return np.asarray(self.origin + self.grain * np.round((found - self.origin) / self.grain))
        return found if self.decimals is None else np.round(found, self.decimals)

    def _within(self, interval: NDArray[np.int64], position: Array) -> Array:
        knots = np.array(self.knots)
        place = position * (knots.shape[1] - 1)
        left = np.minimum(place.astype(np.int64), knots.shape[1] - 2)
        low, high = knots[interval, left], knots[interval, left + 1]
        return low + (place - left) * (high - low)

    def _numbers(self, x: Array) -> NDArray[np.int64]:
        alone = np.array(self.values, dtype=float)
        at = np.minimum(np.searchsorted(alone, x), max(0, len(alone) - 1))
        if not self.knots:
            before = np.maximum(at - 1, 0)
            return np.where(np.abs(alone[before] - x) < np.abs(alone[at] - x), before, at).astype(np.int64)
        tops = np.array([k[-1] for k in self.knots])[:-1]
        within = len(alone) + np.searchsorted(tops, x, side="left")
        return np.where(alone[at] == x, at, within) if len(alone) else within

    def _categories(self, seen: pd.Series) -> NDArray[np.int64]:
        # By comparison of hashes: True and 1 stay what the column's dtype makes of them.
        codes = pd.Index(self.values, dtype=object).get_indexer(pd.Index(seen.astype(object), dtype=object))
        if (codes < 0).any():
            unknown = sorted({str(v) for v in seen[codes < 0]})[:5]
            raise fail("table", f"categories of {self.name!r} that were seen in fit", unknown, "drop these rows")
        return np.asarray(codes, dtype=np.int64)

    def _shown(self, x: float) -> str:
        if self.kind == "date":
            return str(typed(np.array([float(x)]), np.zeros(1, bool), self.dtype, "date")[0])
        return f"{x:.6g}"


def numbers(name: Any, cells: pd.Series) -> Array:
    """Finite numbers (N,) of number or date cells without gaps; dates count in their dtype's unit."""
    if types.is_datetime64_any_dtype(cells.dtype) or types.is_timedelta64_dtype(cells.dtype):
        return cells.astype("int64").to_numpy(dtype=np.float64)
    try:
        x = cells.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise fail("table", f"numbers in {name!r}, as in fit", "something else", "convert the column") from None
    if np.isinf(x).any():
        fix = "replace them by NaN, or drop these rows"
        raise fail("table", f"finite numbers in {name!r}", f"{int(np.isinf(x).sum())} infinite", fix)
    return x


def typed(x: Array, gone: NDArray[np.bool_], dtype: Any, kind: str) -> pd.Series:
    """Numbers (N,) as cells of a dtype, missing where `gone`."""
    if kind == "date":
        cells = pd.Series(x.round().astype(np.int64)).astype(dtype)
        return cells.mask(gone)
    if types.is_integer_dtype(dtype):
        whole = pd.Series(x.round().astype(np.int64))
        return whole.astype("Int64").mask(gone).astype(dtype) if gone.any() else whole.astype(dtype)
    return pd.Series(np.where(gone, np.nan, x)).astype(dtype)


def matches(cells: pd.Series, value: Any) -> NDArray[np.bool_]:
    """Which cells (N,) have a value: a plain one, a ``pd.Interval``, several in a list, or None for missing.

    Example:
        >>> matches(pd.Series([17, 30, 65]), pd.Interval(17, 40)).tolist()
        [False, True, False]
    """
    if isinstance(value, list | set | tuple):
        return np.any([matches(cells, v) for v in value], axis=0)
    if isinstance(value, pd.Interval):
        low = cells >= value.left if value.closed_left else cells > value.left
        high = cells <= value.right if value.closed_right else cells < value.right
        return (low & high).fillna(False).to_numpy(dtype=bool)
    if is_missing(value):
        return cells.isna().to_numpy()
    return (cells == value).fillna(False).to_numpy(dtype=bool)


def is_missing(value: Any) -> bool:
    """Whether a value stands for missing cells."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
