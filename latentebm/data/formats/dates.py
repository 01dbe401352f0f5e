"""Dates among the columns of a table that was read from a file."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
from pandas.api import types

from latentebm.checks import fail

__all__ = ["as_dates", "date_columns"]

# A day, or a day and a time: nothing that could be a number, a code or a day in another order.
ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
ZONE = re.compile(r".*\d\d:\d\d.*(Z|[+-]\d\d:?\d\d)")


def date_columns(table: pd.DataFrame) -> list[Any]:
    """Columns whose every cell is a date written as 2020-12-31, with or without a time, or a Python date.

    Example:
        >>> table = pd.DataFrame({"born": ["1990-05-17", None], "code": ["1990-05", "7"], "day": ["2020-02-30"] * 2})
        >>> date_columns(table)
        ['born']
    """
    return [name for name in table.columns if _all_dates(name, table[name])]


def _all_dates(name: Any, cells: pd.Series) -> bool:
    if not (types.is_object_dtype(cells.dtype) or types.is_string_dtype(cells.dtype)):
        return False
    seen = cells.dropna()
    if not len(seen) or types.infer_dtype(seen) not in ("date", "datetime", "string"):
        return False
    if types.infer_dtype(seen) == "string" and not all(ISO.fullmatch(v) for v in seen.unique()):
        return False
    try:
        return bool(as_dates("", name, seen).notna().all())
    except ValueError:  # such as the 30th of February
        return False


def as_dates(name: str, column: Any, cells: pd.Series) -> pd.Series:
    """Cells of a column as dates, days as far back as the year 1; times of several zones become those of UTC.

    Raises:
        ValueError: a cell that is no date.

    Example:
        >>> as_dates("--date", "founded", pd.Series(["1492-10-12", None])).dt.year.tolist()
        [1492.0, nan]
    """
    zones = any(isinstance(v, str) and ZONE.fullmatch(v) for v in cells.dropna().unique())
    try:
        return pd.to_datetime(cells, format="ISO8601", utc=zones)
    except pd.errors.OutOfBoundsDatetime:
        return cells.astype("datetime64[s]")
    except (ValueError, TypeError) as error:
        fix = f"write them as 2020-12-31, or leave {name} out"
        raise fail(name, f"dates in {column!r}", str(error).partition("\n")[0], fix) from None
