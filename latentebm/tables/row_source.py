"""Where rows come from: the package's model of rows, or anybody's generator with ``sample(n) -> DataFrame``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from torch import Tensor

from latentebm.checks import fail
from latentebm.rng import draw_seed, seeded
from latentebm.tables.column_codes import matches
from latentebm.tables.row_model import RowModel
from latentebm.tables.table_code import TableCode

__all__ = ["DrawnRows", "Modelled", "RowSource", "Sampled"]

Where = Mapping[Any, Any]


@dataclass(frozen=True)
class DrawnRows:
    """Rows drawn under a condition.

    Attributes:
        log_weight: (N,) in double precision, −∞ where a row does not meet the condition.
        table: the rows of some indices (n,), all columns or those named.
        codes: codes (N, D) of all rows.
    """

    log_weight: Tensor
    table: Callable[..., pd.DataFrame]
    codes: Callable[[], Tensor]


class RowSource(ABC):
    """A fitted generator of rows; it is never changed."""

    code: TableCode

    @abstractmethod
    def draw(
        self, n: int, generator: torch.Generator, where: Where | None = None, *, names: Sequence[Any] | None = None
    ) -> DrawnRows:
        """Draw n rows, weighted so that they stand for the rows that meet a condition, column to value.

        Where only the columns of some `names` are asked of most rows, the others need not be drawn for these.
        """


class Modelled(RowSource):
    """Rows of a `RowModel`; those of a condition come by likelihood weighting, none of them in vain."""

    def __init__(self, code: TableCode, model: RowModel) -> None:
        self.code, self.model = code, model

    def draw(
        self, n: int, generator: torch.Generator, where: Where | None = None, *, names: Sequence[Any] | None = None
    ) -> DrawnRows:
        """Draw n rows, whose codes all may meet the condition; later columns come when they are asked for."""
        where, z, model = where or {}, self.model.latents(n, generator), self.model
        columns = self.code.names if names is None else [*names, *where]
        stop = max((model.back[self.code.names.index(c)] + 1 for c in columns), default=0)
        allowed = {self.code.names.index(c): torch.from_numpy(self.code[c].allowed(v)) for c, v in where.items()}
        known, position, log_weight = model.rows(z, allowed, stop=stop)

        def codes(rows: Tensor) -> Tensor:
            return model.rows(z[rows], known=known[rows])[0].cpu()

        def table(rows: Tensor, names: Sequence[Any] | None = None) -> pd.DataFrame:
            early = names is not None and all(model.back[self.code.names.index(c)] < stop for c in names)
            return self.code.decode(known[rows].cpu() if early else codes(rows), position[rows].cpu(), names)

        log_weight = log_weight.double().cpu()
        if where:  # an interval of numbers may hold a part of a code's numbers only
            log_weight[~meets(table(torch.arange(n), list(where)), where)] = -torch.inf
        return DrawnRows(log_weight, table, lambda: codes(torch.arange(n)))


class Sampled(RowSource):
    """Rows of anything with ``sample(n)``, such as CTGAN, TVAE or a synthesizer of SDV.

    What it draws from the global streams of torch and NumPy is seeded from the generator.
    """

    def __init__(self, code: TableCode, model: Any) -> None:
        self.code, self.model = code, model

    def draw(
        self, n: int, generator: torch.Generator, where: Where | None = None, *, names: Sequence[Any] | None = None
    ) -> DrawnRows:
        """Draw n rows; those that do not meet the condition have no weight."""
        rows = self._sample(n, generator)
        log_weight = torch.zeros(n, dtype=torch.float64)
        log_weight[~meets(rows, where or {})] = -torch.inf

        def table(index: Tensor, names: Sequence[Any] | None = None) -> pd.DataFrame:
            return rows.iloc[index.numpy()][self.code.names if names is None else list(names)].reset_index(drop=True)

        return DrawnRows(log_weight, table, lambda: self.code.encode(rows))

    def _sample(self, n: int, generator: torch.Generator) -> pd.DataFrame:
        seed, state = draw_seed(generator), np.random.get_state()
        with seeded(seed):
            np.random.seed(seed)
            try:
                rows = self.model.sample(n)
            finally:
                np.random.set_state(state)
        if not isinstance(rows, pd.DataFrame) or len(rows) != n:
            got = f"{len(rows)} rows" if isinstance(rows, pd.DataFrame) else type(rows).__name__
            raise fail("model.sample", f"a DataFrame of {n} rows", got, "wrap it so that it returns n rows")
        absent = [c for c in self.code.names if c not in rows.columns]
        if absent:
            raise fail("model.sample", "every column of the table", f"none named {absent}", "fit it to this table")
        rows = rows.reset_index(drop=True)
        changed = {c.name: like(rows[c.name], c.dtype) for c in self.code.columns if rows[c.name].dtype != c.dtype}
        return rows.assign(**changed) if changed else rows


def like(cells: pd.Series, dtype: Any) -> pd.Series:
    """A foreign model's cells in the dtype of the table that it was fitted to."""
    try:
        found = converted(cells, dtype)
    except (TypeError, ValueError) as error:
        raise fail("model.sample", f"cells of {cells.name!r} as {dtype}", error, "fit it to this table") from None
    if not found.isna().equals(cells.isna()):
        got = f"others, such as {cells[found.isna() & cells.notna()].iloc[0]!r}"
        raise fail("model.sample", f"cells of {cells.name!r} as {dtype}", got, "fit it to this table")
    return found


def converted(cells: pd.Series, dtype: Any) -> pd.Series:
    """Cells in another dtype, floats rounded to whole numbers, missing where a category is none of its own."""
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical.from_codes(dtype.categories.get_indexer(cells), dtype=dtype), name=cells.name)
    whole = types.is_integer_dtype(dtype) and types.is_float_dtype(cells.dtype)
    return (cells.round() if whole else cells).astype(dtype)


def meets(rows: pd.DataFrame, where: Where) -> Tensor:
    """Which rows (N,) meet a condition."""
    held = np.ones(len(rows), dtype=bool)
    for column, value in where.items():
        held &= matches(rows[column], value)
    return torch.from_numpy(held)
