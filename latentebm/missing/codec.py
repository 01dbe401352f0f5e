"""Tables to model values and back: standardised numbers, class numbers, masks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latentebm.checks import check_choice, fail
from latentebm.missing.column_kinds import are_flags, are_numbers, no_numbers
from latentebm.missing.mechanisms import MissingDataWarning
from latentebm.missing.mixed_likelihoods import FAMILIES

__all__ = ["ColumnCode", "TableCodec", "check_columns"]

Likelihood = str | Mapping[Any, str]
Bounds = Mapping[Any, tuple[float, float]]
FARTHEST = 1e6  # standard deviations: what lies beyond is read as this, which float32 can square


@dataclass(frozen=True)
class ColumnCode:
    """How one column becomes numbers."""

    family: str  # of the likelihood
    centre: float = 0.0  # mean of a numeric column, in its unit
    scale: float = 1.0  # its standard deviation; 0 where the column is constant or empty
    low: float = -math.inf  # bounds of what is imputed, in the column's unit
    high: float = math.inf
    whole: bool = False  # whether only whole numbers are
    classes: tuple[Any, ...] = ()  # values of a categorical column, in order of their class number
    dtype: Any = None  # of a categorical column

    def numbers(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Model values (n,) in the column's unit, within its range."""
        inside = np.clip(self.centre + self.scale * values, self.low, self.high)
        return inside.round() if self.whole else inside


class TableCodec:
    r"""Maps a table to values the model reads, :math:`(x - \bar x)/\mathrm{sd}` or class numbers, and back.

    A constant column has scale 0: it is imputed by its constant. So has an empty column, which is filled with zeros (or
    its first declared class).

    Flags without a declared ``bernoulli`` are classes. What is imputed keeps to whole numbers where all numbers of a
    column are whole, is no smaller than the smallest positive number of a positive column (0 of one with zeros), and
    stays within [0, 1] where all others do; `bounds` overrule this, and without `ranges` only they hold.

    `likelihood`, `standardize` and `bounds` are those of :class:`MIWAEImputer`.

    Raises:
        ValueError: an unknown family, text without a declared ``categorical``, values outside {0, 1} of a
            ``bernoulli`` column, infinite values, or a class not seen in the fit.

    Example:
        >>> codec = TableCodec("gaussian").fit(pd.DataFrame({"a": [1.0, 3.0, np.nan]}))
        >>> values, mask = codec.encode(pd.DataFrame({"a": [1.0, 3.0, np.nan]}))
        >>> values.ravel(), mask.ravel()
        (array([-1.,  1.,  0.]), array([ True,  True, False]))
    """

    def __init__(
        self, likelihood: Likelihood = "gaussian", *, standardize: bool = True, bounds: Bounds | None = None,
        ranges: bool = True,
    ) -> None:  # fmt: skip
        self.likelihood, self.standardize = likelihood, standardize
        self.bounds, self.ranges = bounds or {}, ranges
        self.codes: list[ColumnCode] = []

    @property
    def families(self) -> list[str | tuple[str, int]]:
        """One family per column, as the model takes them."""
        # One class alone still needs two logits.
        return [(c.family, max(2, len(c.classes))) if c.family == "categorical" else c.family for c in self.codes]

    def fit(self, table: pd.DataFrame) -> TableCodec:
        """Learn the columns' codes from their observed cells."""
        if isinstance(self.likelihood, Mapping):
            check_columns("likelihood", self.likelihood, table)
        check_columns("bounds", self.bounds, table)
        self.codes = [self._learn(name, table.iloc[:, j]) for j, name in enumerate(table.columns)]
        return self

    def encode(self, table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Values (N, D), zeros where missing, and the mask (N, D), True = observed."""
        mask = table.notna().to_numpy()
        values = np.zeros(table.shape)
        for j, code in enumerate(self.codes):
            column = table.iloc[:, j][mask[:, j]]
            values[mask[:, j], j] = self._values(table.columns[j], column, code)
        return values, mask

    def decode(self, values: NDArray[np.float64], table: pd.DataFrame) -> pd.DataFrame:
        """`table` with its missing cells taken from `values` (N, D)."""
        columns = {}
        for j, code in enumerate(self.codes):
            column = table.iloc[:, j]
            if column.notna().all():
                columns[j] = column  # whole numbers and flags stay what they were
            elif code.family == "categorical":
                columns[j] = _filled_classes(column, values[:, j].astype(int), code)
            else:
                columns[j] = _filled_numbers(column, code.numbers(values[:, j]))
        return pd.DataFrame(columns).set_axis(table.columns, axis=1)

    def _family(self, name: Any, column: pd.Series) -> str:
        declared = self.likelihood if isinstance(self.likelihood, str) else self.likelihood.get(name)
        family = check_choice("likelihood", declared or "gaussian", FAMILIES)
        if family == "categorical" or column.isna().all():
            return family
        if are_flags(column):
            return family if family == "bernoulli" else "categorical"
        if not are_numbers(column):
            raise no_numbers(name, column, declared)
        return family

    def _learn(self, name: Any, column: pd.Series) -> ColumnCode:
        family = self._family(name, column)
        seen = column.dropna()
        if seen.empty:
            known = tuple(getattr(column.dtype, "categories", ())[:1]) if family == "categorical" else ()
            filled = repr(known[0]) if known else "zeros"
            warnings.warn(f"column {name!r} has no observed cell: it is filled with {filled}", MissingDataWarning, 6)
            return ColumnCode(family, scale=float(bool(known)), classes=known, dtype=column.dtype)
        if family == "categorical":
            return ColumnCode(family, classes=_classes(name, seen), dtype=column.dtype)
        x = _finite(name, seen)
        if family == "bernoulli":
            if not np.isin(x, (0, 1)).all():
                raise fail("X", f"0 and 1 in the bernoulli column {name!r}", "other values", "declare another family")
            return ColumnCode(family)
        return self._number(name, x, family)

    def _number(self, name: Any, x: NDArray[np.float64], family: str) -> ColumnCode:
        unit = float(np.abs(x).max()) or 1.0  # squares of very large or small numbers would leave the floats
        centre, scale = unit * float((x / unit).mean()), unit * float((x / unit).std())
        if scale <= 1e-12 * abs(centre) or x.min() == x.max():
            warnings.warn(f"column {name!r} is constant: it is imputed by its constant", MissingDataWarning, 7)
            return ColumnCode(family, centre, 0.0)
        centre, scale = (centre, scale) if self.standardize else (0.0, 1.0)
        whole = bool((x == np.floor(x)).all())
        return ColumnCode(family, centre, scale, *self._bounds(name, x), whole)

    def _bounds(self, name: Any, x: NDArray[np.float64]) -> tuple[float, float]:
        if name in self.bounds:
            low, high = self._pair(name)
            if not low <= x.min() <= x.max() <= high:
                got = f"({low}, {high}), and [{x.min():g}, {x.max():g}] in X"
                raise fail("bounds", f"bounds that hold all of column {name!r}", got, "widen them")
            return low, high
        if not self.ranges or x.min() < 0:
            return -math.inf, math.inf
        return float(x.min()), 1.0 if x.max() <= 1 else math.inf

    def _pair(self, name: Any) -> tuple[float, float]:
        try:
            low, high = map(float, self.bounds[name])
        except (TypeError, ValueError):
            fix = f"pass bounds={{{name!r}: (low, high)}}"
            raise fail("bounds", f"two numbers for column {name!r}", self.bounds[name], fix) from None
        return low, high

    def _values(self, name: Any, column: pd.Series, code: ColumnCode) -> NDArray[np.float64]:
        if code.family != "categorical":
            if not are_numbers(column):
                raise no_numbers(name, column, code.family)
            return np.clip((_finite(name, column) - code.centre) / (code.scale or 1.0), -FARTHEST, FARTHEST)
        number = {value: i for i, value in enumerate(code.classes)}
        found = [number.get(v, -1) for v in column.tolist()]
        if -1 in found:
            unknown = sorted({str(v) for v, i in zip(column, found, strict=True) if i < 0})[:10]
            seen = [*code.classes[:10], *["…"] * (len(code.classes) > 10)]
            raise fail("X", f"classes of {name!r} seen in fit, {seen}", unknown, "fit on all classes")
        return np.array(found, dtype=np.float64)


def _classes(name: Any, seen: pd.Series) -> tuple[Any, ...]:
    """Values of a categorical column, sorted."""
    try:
        return tuple(sorted(seen.unique().tolist(), key=lambda v: (str(type(v)), v)))
    except TypeError as error:  # lists, dicts
        raise fail("X", f"text or numbers in column {name!r}", str(error), "convert its cells to text") from None


def _filled_classes(column: pd.Series, values: NDArray[np.int_], code: ColumnCode) -> pd.Series:
    """A column with its gaps filled by classes; its type takes on classes that it lacks."""
    known = np.empty(max(1, len(code.classes)), dtype=object)
    known[:] = code.classes or (0.0,)
    filled = pd.Series(known[np.minimum(values, len(known) - 1)], index=column.index)
    done = column.astype(object).where(column.notna(), filled)
    # A column without any cell says nothing about its type: one record of a table is read as numbers.
    dtype = code.dtype if column.isna().all() and code.dtype is not None else column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        more = [c for c in code.classes if c not in dtype.categories]
        dtype = pd.CategoricalDtype(dtype.categories.append(pd.Index(more)), dtype.ordered) if more else dtype
    return done.astype(dtype)


def _filled_numbers(column: pd.Series, values: NDArray[np.float64]) -> pd.Series:
    """A column with its gaps filled by numbers; nullable numbers stay such."""
    if pd.api.types.is_extension_array_dtype(column.dtype) and pd.api.types.is_integer_dtype(column.dtype):
        span = np.iinfo(column.dtype.numpy_dtype)  # what is imputed may lie beyond what the type holds
        whole = values.round().clip(np.nextafter(span.min, 0.0), np.nextafter(span.max, 0.0))
        return column.where(column.notna(), pd.Series(whole.round(), index=column.index).astype(column.dtype))
    seen = column.to_numpy(dtype=np.float64, na_value=np.nan)
    filled = pd.Series(np.where(np.isnan(seen), values, seen), index=column.index)
    nullable = pd.api.types.is_extension_array_dtype(column.dtype) and pd.api.types.is_float_dtype(column.dtype)
    return filled.astype(column.dtype) if nullable else filled


def check_columns(setting: str, names: Iterable[Any], table: pd.DataFrame) -> None:
    """Raise ValueError if a setting names columns that the table lacks."""
    unknown = [c for c in names if c not in table.columns]
    if unknown:
        raise fail(setting, "columns of X", unknown, f"pass some of {list(map(str, table.columns))[:10]}")


def _finite(name: Any, column: pd.Series) -> NDArray[np.float64]:
    x = column.to_numpy(dtype=np.float64)
    if np.isinf(x).any():
        raise fail("X", "finite values or NaN", f"infinity in column {name!r}", "remove it first")
    return x
