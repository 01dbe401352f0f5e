"""What a column or an array holds, in whatever type: flags, numbers, or what has to be converted first."""

from __future__ import annotations

from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array

from latentebm.checks import fail

__all__ = ["are_flags", "are_numbers", "no_numbers", "numbers_of"]


def numbers_of(X: Any, estimator: Any) -> np.ndarray:
    """An array (N, D) of floats, NaN where missing; ValueError for what holds other things."""
    if getattr(getattr(X, "dtype", None), "kind", "") in ("m", "M"):
        raise fail("X", "numbers in an array", "dates or times", "pass days or seconds since a day, as floats")
    if getattr(getattr(X, "dtype", None), "names", None):
        raise fail("X", "numbers in an array", "records with named fields", "pass pandas.DataFrame(X)")
    if isinstance(X, np.ma.MaskedArray):  # what it hides is missing
        X = np.ma.filled(X.astype(object), np.nan)
    if isinstance(X, np.ndarray) and X.dtype.kind == "O":  # pandas.NA is no number to numpy
        X = np.where(pd.isna(X), np.nan, X)
    try:
        return check_array(X, dtype=np.float64, ensure_all_finite="allow-nan", estimator=estimator, input_name="X")
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        fix = "pass a DataFrame and likelihood={column: 'categorical'}"
        raise fail("X", "numbers in an array", "text", fix) from None


def are_flags(column: pd.Series) -> bool:
    """Whether all observed cells are True or False; with gaps, these are objects to pandas."""
    if column.dtype == object:
        return all(isinstance(v, bool | np.bool_) for v in column.dropna())
    return pd.api.types.is_bool_dtype(column)


def are_numbers(column: pd.Series) -> bool:
    """Whether all observed cells are numbers, in a column of objects too."""
    if column.dtype == object:
        return all(isinstance(v, Real | Decimal) for v in column.dropna())
    return pd.api.types.is_numeric_dtype(column) and column.dtype.kind != "c"


def no_numbers(name: Any, column: pd.Series, declared: str | None) -> ValueError:
    """The error about a column that is not declared categorical and holds no numbers, with the fix of its kind."""
    kind, fix = "text or categories", f"pass likelihood={{{name!r}: 'categorical'}}"
    cells = column.dropna()
    if advice := _as_days(f"X[{name!r}]", column, cells):
        kind, fix = "dates or times", advice
    elif column.dtype.kind == "c":
        kind, fix = "complex numbers", f"pass two columns, X[{name!r}].to_numpy().real and .imag"
    elif all(isinstance(v, str) for v in cells) and _written_numbers(cells):
        kind, fix = "numbers written as text", f"pass pandas.to_numeric(X[{name!r}]), or {fix[5:]}"
    return fail("likelihood", f"a family for {name!r}, which holds {kind}", declared, fix)


def _as_days(column: str, values: pd.Series, cells: pd.Series) -> str:
    """What makes numbers of dates or times; nothing where these are none."""
    first = cells.iloc[0]
    if values.dtype.kind == "m":
        return f"pass seconds, {column}.dt.total_seconds()"
    if values.dtype.kind == "M":
        return f"pass days, ({column} - {column}.min()).dt.days"
    if isinstance(first, pd.Period):
        return f"convert it first, by pandas.PeriodIndex({column}).to_timestamp()"
    if isinstance(first, time):
        return f"pass hours, {column}.map(lambda t: t.hour + t.minute / 60, na_action='ignore')"
    if isinstance(first, timedelta):
        return f"convert it first, by pandas.to_timedelta({column})"
    zone = ", utc=True" if getattr(first, "tzinfo", None) else ""
    return f"convert it first, by pandas.to_datetime({column}{zone})" if isinstance(first, date) else ""


def _written_numbers(cells: pd.Series) -> bool:
    """Whether all texts are numbers."""
    return not np.isnan(pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)).any()
