"""Tables to model values and back: standardised numbers, class numbers, masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latentebm.checks import check_choice, fail
from latentebm.missing.mechanisms import MissingDataWarning
from latentebm.missing.mixed_likelihoods import FAMILIES

__all__ = ["ColumnCode", "TableCodec", "check_columns"]

Likelihood = str | Mapping[Any, str]


@dataclass(frozen=True)
class ColumnCode:
    """How one column becomes numbers."""

    family: str  # of the likelihood
    centre: float = 0.0  # mean of a numeric column, in its unit
    scale: float = 1.0  # its standard deviation; 0 where the column is constant or empty
    classes: tuple[Any, ...] = ()  # values of a categorical column, in order of their class number


class TableCodec:
    r"""Maps a table to values the model reads, :math:`(x - \bar x)/\mathrm{sd}` or class numbers, and back.

    A constant column has scale 0: it is imputed by its constant. So has an empty column, which is filled with zeros (or
    its first declared class).

    `likelihood` and `standardize` are those of :class:`MIWAEImputer`.

    Raises:
        ValueError: an unknown family, text without a declared ``categorical``, values outside {0, 1} of a
            ``bernoulli`` column, infinite values, or a class not seen in the fit.

    Example:
        >>> codec = TableCodec("gaussian").fit(pd.DataFrame({"a": [1.0, 3.0, np.nan]}))
        >>> values, mask = codec.encode(pd.DataFrame({"a": [1.0, 3.0, np.nan]}))
        >>> values.ravel(), mask.ravel()
        (array([-1.,  1.,  0.]), array([ True,  True, False]))
    """

    def __init__(self, likelihood: Likelihood = "gaussian", *, standardize: bool = True) -> None:
        self.likelihood, self.standardize = likelihood, standardize
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
                classes = np.asarray(code.classes or (0.0,), dtype=object)
                filled = pd.Series(classes[np.minimum(values[:, j].astype(int), len(classes) - 1)], index=table.index)
                # A categorical dtype would refuse the plain values only if they were not among its categories.
                columns[j] = column.astype(object).where(column.notna(), filled).astype(column.dtype)
            else:
                numbers = code.centre + code.scale * values[:, j]
                seen = column.to_numpy(dtype=np.float64, na_value=np.nan)
                columns[j] = pd.Series(np.where(np.isnan(seen), numbers, seen), index=table.index)
        return pd.DataFrame(columns).set_axis(table.columns, axis=1)

    def _family(self, name: Any, column: pd.Series) -> str:
        declared = self.likelihood if isinstance(self.likelihood, str) else self.likelihood.get(name)
        if declared != "categorical":
            seen = column.dropna()
            # Flags with gaps are objects to pandas, and numbers to everybody else.
            flags = declared == "bernoulli" and seen.map(lambda v: isinstance(v, bool | np.bool_)).all()
            if not pd.api.types.is_numeric_dtype(column) and len(seen) and not flags:
                fix = f"pass likelihood={{{name!r}: 'categorical'}}"
                raise fail("likelihood", f"a family for {name!r}, which holds text or categories", declared, fix)
        return check_choice("likelihood", declared or "gaussian", FAMILIES)

    def _learn(self, name: Any, column: pd.Series) -> ColumnCode:
        family = self._family(name, column)
        seen = column.dropna()
        if seen.empty:
            known = tuple(getattr(column.dtype, "categories", ())[:1]) if family == "categorical" else ()
            filled = repr(known[0]) if known else "zeros"
            warnings.warn(f"column {name!r} has no observed cell: it is filled with {filled}", MissingDataWarning, 6)
            return ColumnCode(family, scale=float(bool(known)), classes=known)
        if family == "categorical":
            return ColumnCode(family, classes=tuple(sorted(seen.unique().tolist(), key=lambda v: (str(type(v)), v))))
        numbers = _finite(name, seen)
        if family == "bernoulli":
            if not np.isin(numbers, (0, 1)).all():
                raise fail("X", f"0 and 1 in the bernoulli column {name!r}", "other values", "declare another family")
            return ColumnCode(family)
        centre, scale = float(numbers.mean()), float(numbers.std())
        if scale <= 1e-12 * max(1.0, abs(centre)):
            warnings.warn(f"column {name!r} is constant: it is imputed by its constant", MissingDataWarning, 6)
            return ColumnCode(family, centre, 0.0)
        return ColumnCode(family, centre, scale) if self.standardize else ColumnCode(family)

    def _values(self, name: Any, column: pd.Series, code: ColumnCode) -> NDArray[np.float64]:
        if code.family != "categorical":
            return (_finite(name, column) - code.centre) / (code.scale or 1.0)
        number = {value: i for i, value in enumerate(code.classes)}
        unknown = sorted({str(v) for v in column if v not in number})
        if unknown:
            raise fail("X", f"classes of {name!r} seen in fit, {list(code.classes)}", unknown, "fit on all classes")
        return np.array([number[v] for v in column], dtype=np.float64)


def check_columns(setting: str, names: Iterable[Any], table: pd.DataFrame) -> None:
    """Raise ValueError if a setting names columns that the table lacks."""
    unknown = [c for c in names if c not in table.columns]
    if unknown:
        raise fail(setting, "columns of X", unknown, f"pass some of {list(map(str, table.columns))[:10]}")


def _finite(name: Any, column: pd.Series) -> NDArray[np.float64]:
    try:
        numbers = column.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise fail("X", f"numbers in column {name!r}", "text", "declare it categorical") from None
    if np.isinf(numbers).any():
        raise fail("X", "finite values or NaN", f"infinity in column {name!r}", "remove it first")
    return numbers
