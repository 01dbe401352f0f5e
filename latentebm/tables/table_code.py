"""A whole table as codes and positions, and the checks a table passes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.tables.column_codes import Column
from latentebm.tables.learn_column import learn_column

__all__ = ["FEWEST_ROWS", "TableCode", "check_table"]

FEWEST_ROWS = 20
DENSE = 0.5  # share of its range that an identifier in any order fills
UNIQUE = 0.5  # share of distinct text cells above which a column is free text or an identifier


class TableCode:
    """The columns of a table, learned from its rows, and the way from rows to codes and back.

    Raises:
        ValueError: what `check_table` refuses, or infinite, mixed or too many different cells in a column.

    Example:
        >>> table = pd.DataFrame({"sex": ["F", "M"] * 10, "age": [30, 40] * 10})
        >>> code = TableCode.learn(table)
        >>> code.sizes, code.encode(table)[:2].tolist()
        ([2, 2], [[0, 0], [1, 1]])
        >>> code.decode(torch.tensor([[1, 0]]), torch.zeros(1, 2)).to_dict("records")
        [{'sex': 'M', 'age': 30}]
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = list(columns)

    @classmethod
    def learn(cls, table: pd.DataFrame) -> TableCode:
        """The code of a table's columns."""
        check_table("biased", table)
        return cls([learn_column(name, table[name]) for name in table.columns])

    @property
    def names(self) -> list[Any]:
        """Names of the columns, in order."""
        return [c.name for c in self.columns]

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each column."""
        return [c.size for c in self.columns]

    def __getitem__(self, name: Any) -> Column:
        return self.columns[self.names.index(name)]

    def encode(self, table: pd.DataFrame) -> Tensor:
        """Codes (N, D) of rows.

        Raises:
            ValueError: columns other than the fit's, or cells that it did not see.
        """
        absent = [name for name in self.names if name not in table.columns]
        if absent:
            raise fail("table", f"the columns of the fit, {self.names}", f"none named {absent}", "add them")
        return torch.from_numpy(np.stack([c.encode(table[c.name]) for c in self.columns], 1))

    def decode(self, codes: Tensor, position: Tensor, names: Sequence[Any] | None = None) -> pd.DataFrame:
        """Rows from codes (N, D) and positions (N, D) of [0, 1); some columns only where `names` says which."""
        chosen = range(len(self.columns)) if names is None else [self.names.index(name) for name in names]
        place = position.double().numpy()
        parts = {j: self.columns[j].decode(codes[:, j].numpy(), place[:, j]) for j in chosen}
        return pd.DataFrame(parts).set_axis([self.columns[j].name for j in chosen], axis=1)


def check_table(name: str, table: pd.DataFrame, *, fewest: int = FEWEST_ROWS) -> pd.DataFrame:
    """Return a table whose columns can be learned: enough rows, distinct names, neither identifiers nor free text.

    Example:
        >>> check_table("biased", pd.DataFrame({"name": [f"person {i}" for i in range(30)]}))
        Traceback (most recent call last):
        ValueError: biased: expected columns that repeat, got free text or identifiers in ['name']; leave them out...
    """
    if not isinstance(table, pd.DataFrame):
        raise fail(name, "a pandas DataFrame", type(table).__name__, "pass pd.DataFrame(...)")
    if len(table) < fewest or not table.shape[1]:
        got = f"{table.shape[0]} × {table.shape[1]}"
        raise fail(name, f"at least {fewest} rows and one column", got, "pass more rows")
    twice = table.columns[table.columns.duplicated()].unique().tolist()
    if twice:
        raise fail(name, "each column name once", f"{twice} twice", "rename them, or drop one of each")
    unlike = [column for column in table.columns if _identifies(table[column])]
    if unlike:
        fix = f"leave them out by table.drop(columns={unlike}) or --drop; dates: as datetime64, in files as 2020-12-31"
        raise fail(name, "columns that repeat", f"free text or identifiers in {unlike}", fix)
    return table


def _identifies(cells: pd.Series) -> bool:
    """Whether a column names its rows: text that hardly repeats, or whole numbers that count them or only rise."""
    seen = cells.dropna()
    if len(seen) < FEWEST_ROWS:
        return False
    if pd.api.types.is_integer_dtype(cells.dtype):
        # Distinct numbers that fill half of their range were not drawn: some would repeat.
        counted = len(seen) >= DENSE * (float(seen.max()) - float(seen.min()))
        return bool(seen.is_unique and (counted or seen.is_monotonic_increasing or seen.is_monotonic_decreasing))
    if pd.api.types.is_numeric_dtype(cells.dtype) or pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return False
    try:
        return seen.nunique() > max(UNIQUE * len(seen), FEWEST_ROWS)
    except TypeError:  # cells such as lists have no hash; the column's own check names their type
        return False
