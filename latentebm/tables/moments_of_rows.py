"""Moments of rows as plain data, and shares of weighted rows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from latentebm.checks import fail
from latentebm.tables.column_codes import matches

__all__ = ["Moment", "Rows", "Term"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One summand of a feature: a factor, the cells a row must have to count, and what number is averaged, if any."""

    factor: float
    where: tuple[tuple[Any, Any], ...]  # column and value
    column: Any = None  # of the number; None to count rows
    centre: float = 0.0  # that the number is counted from


@dataclass(frozen=True)
class Moment:
    """A feature of a row, the sum of its terms, and the mean that it shall have.

    Where the terms are centred, their mean is wanted at ``wanted − offset``.
    """

    name: str
    terms: tuple[Term, ...]
    wanted: float
    bound: str = "equal"
    offset: float | None = None  # None: not centred

    @property
    def goal(self) -> float:
        """Wanted mean of the feature."""
        return self.wanted if self.offset is None else 0.0


class Rows:
    """Rows (N, D) and their weights (N,), and the shares of cells among them.

    Example:
        >>> rows = Rows(pd.DataFrame({"a": ["x", "y"]}), np.array([3.0, 1.0]))
        >>> rows.share({"a": "x"}), rows.shares(("a",), {})
        (0.75, {'x': 0.75, 'y': 0.25})
    """

    def __init__(self, table: pd.DataFrame, weight: Array | None = None) -> None:
        self.table = table
        weight = np.ones(len(table)) if weight is None else weight
        self.weight: Array = weight / weight.sum()
        self._found: dict[tuple[Any, str], NDArray[np.bool_]] = {}

    def holds(self, where: Mapping[Any, Any] | Sequence[tuple[Any, Any]]) -> NDArray[np.bool_]:
        """Which rows (N,) have these cells."""
        held = np.ones(len(self.table), dtype=bool)
        for column, value in dict(where).items():
            key = (column, repr(value))
            if key not in self._found:
                self._found[key] = matches(self.table[column], value)
            held &= self._found[key]
        return held

    def share(self, where: Mapping[Any, Any]) -> float:
        """Share of the rows that have these cells."""
        return float(self.weight[self.holds(where)].sum())

    def share_above_zero(self, where: Mapping[Any, Any], fix: str = "") -> float:
        """`share`, or a ValueError that names what no row has."""
        found = self.share(where)
        if not found > 0:
            said = ", ".join(f"{c}={v!r}" for c, v in where.items())
            fix = fix or "check the value, or train the model on some such rows"
            raise fail("target", f"rows with {said}", f"none among {len(self.table):,} of the model's", fix)
        return found

    def shares(self, names: Sequence[Any], given: Mapping[Any, Any]) -> dict[Any, float]:
        """Share of every value, or tuple of values, of some columns among the rows with the given cells."""
        held = self.holds(given)
        frame = self.table.loc[held, list(names)].astype(object).where(lambda t: t.notna(), None)
        keys = list(frame.itertuples(index=False, name=None)) if len(names) > 1 else frame.iloc[:, 0].tolist()
        totals: dict[Any, float] = {}
        for key, w in zip(keys, self.weight[held].tolist(), strict=True):
            totals[key] = totals.get(key, 0.0) + w
        whole = sum(totals.values())
        return {key: total / whole for key, total in sorted(totals.items(), key=lambda item: str(item[0]))}

    def values(self, column: Hashable, most: int, given: Mapping[Any, Any]) -> list[Any]:
        """Values of a column among the rows with the given cells, at most so many."""
        found = list(self.shares((column,), given))
        if len(found) > most:
            fix = "cut it into intervals by pd.cut first"
            raise fail("target", f"a column of at most {most} values", f"{len(found)} in {column!r}", fix)
        return found

    def spread(self, column: Any) -> float:
        """Standard deviation of a number column; 1 where it is constant."""
        if not types.is_numeric_dtype(self.table[column].dtype) or types.is_bool_dtype(self.table[column].dtype):
            raise fail("target", "a number column", repr(column), "use Share for categories")
        return float(self.table[column].std()) or 1.0

    def features(self, moments: Sequence[Moment]) -> Array:
        """Features (N, F) of the rows."""
        columns = []
        for moment in moments:
            feature = np.zeros(len(self.table))
            for term in moment.terms:
                held = self.holds(term.where)
                if term.column is None:
                    feature += term.factor * held
                else:
                    x = self.table[term.column].to_numpy(dtype=np.float64, na_value=np.nan)
                    feature += term.factor * np.where(held & ~np.isnan(x), x - term.centre, 0.0)
            columns.append(feature)
        return np.stack(columns, 1) if columns else np.zeros((len(self.table), 0))
