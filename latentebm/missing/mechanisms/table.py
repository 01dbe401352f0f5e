"""One view of numpy arrays, torch tensors and pandas frames: rows by columns, read one column at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from latentebm.checks import fail

__all__ = ["Columns", "Table"]

Columns = Sequence[int | str] | int | str | None
BLOCK = 8  # columns; 8 float64 fill one cache line
ROWS = 4096  # rows read together; 50 columns of them fit in the second-level cache


class Table:
    """Rows by columns behind numpy, torch or pandas data; columns are read one at a time to keep memory low.

    Arguments:
        X: array or tensor (N, …), flattened to (N, D), or a DataFrame of D columns.
        y: labels (N,), or a function without arguments that returns them, called where a mechanism needs them.
    """

    def __init__(self, X: Any, y: Any = None) -> None:
        X = np.ma.filled(X.astype(np.float64), np.nan) if isinstance(X, np.ma.MaskedArray) else X
        self.X = X
        self.frame = isinstance(X, pd.DataFrame)
        if not self.frame and not isinstance(X, np.ndarray | torch.Tensor):
            raise fail("X", "a numpy array, torch tensor or pandas DataFrame", type(X).__name__, "convert it first")
        if X.ndim < 2 or 0 in X.shape:
            raise fail("X", "at least one row and one column", tuple(X.shape), "pass data of shape (N, D)")
        self.event_shape = tuple(X.shape[1:])
        self.shape = (len(X), int(np.prod(self.event_shape)))
        array = X.detach().cpu() if torch.is_tensor(X) else X
        self.flat = None if self.frame else np.asarray(array).reshape(self.shape)
        self.y = y if y is None or callable(y) else self._checked(y)
        self._block: tuple[int, NDArray[Any]] = (-1, np.empty(0))
        self.seen = np.empty(self.shape[::-1], dtype=bool)  # which cells hold a value, (D, N)
        for rows, columns, part in self._parts():
            missing = part != part if part.dtype.kind == "f" else pd.isna(part)
            if part.dtype.kind == "f" and not np.isfinite(part).all() and np.isinf(part).any():
                j = columns.start + int(np.isinf(part).any(axis=0).argmax())
                raise fail("X", "finite values or NaN", f"infinite values in column {j}", "remove them first")
            self.seen[columns, rows] = ~missing.T

    def _parts(self) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
        """Rows, columns and the values there: runs of rows of an array, which lie together, or columns of a frame."""
        if self.flat is None:
            for j in range(self.shape[1]):
                yield slice(None), slice(j, j + 1), self.raw(j)[:, None]
        else:
            for start in range(0, len(self.flat), ROWS):
                rows = slice(start, start + ROWS)
                yield rows, slice(0, self.shape[1]), self.flat[rows]

    def raw(self, j: int) -> NDArray[Any]:
        """Column `j` as it is, (N,)."""
        if self.flat is None:
            return self.X.iloc[:, j].to_numpy()
        # Columns of a large row-major table are far apart: a few at a time are laid out contiguously.
        if self._block[0] != j // BLOCK:
            part = self.flat[:, j // BLOCK * BLOCK : (j // BLOCK + 1) * BLOCK]
            self._block = (j // BLOCK, np.ascontiguousarray(part.T))
        return self._block[1][j % BLOCK]

    def numeric(self, j: int) -> NDArray[np.float64]:
        """Column `j` as float64 (N,), NaN where missing; categories and strings have no order to depend on."""
        column, expected = self.raw(j), "numbers in the columns a mechanism depends on"
        name = self.X.columns[j] if self.frame else j
        if column.dtype.kind in "mM":
            raise fail("X", expected, f"times in {name!r}", "convert them to numbers, or leave the column out")
        if column.dtype.kind not in "fiub":
            try:
                column = pd.to_numeric(pd.Series(column)).to_numpy(dtype=np.float64, na_value=np.nan)
            except (ValueError, TypeError):
                raise fail("X", expected, f"text in {name!r}", "encode it as numbers, or leave it out") from None
        return column.astype(np.float64, copy=False)

    def indices(self, columns: Columns) -> list[int]:
        """Column numbers, each once, of names, numbers (negative from the end), one flag per column, or None for all.

        Raises:
            ValueError: an unknown column, or flags of another number.
        """
        if columns is None:
            return list(range(self.shape[1]))
        chosen = [columns] if isinstance(columns, int | str | np.integer) else list(columns)
        if chosen and all(isinstance(c, bool | np.bool_) for c in chosen):
            if len(chosen) != self.shape[1]:
                got, fix = f"{len(chosen)} of them", "pass column numbers or names, or one flag per column"
                raise fail("columns", f"{self.shape[1]} flags, one per column", got, fix)
            return [int(j) for j in np.flatnonzero(chosen)]
        # A column named twice is one column: it must not lose its cells twice.
        return list(dict.fromkeys(self._index(c) for c in chosen))

    def _index(self, column: Any) -> int:
        if self.frame and column in self.X.columns:
            where = self.X.columns.get_loc(column)
            if not isinstance(where, int):
                raise fail("X", "unique column names", f"{column!r} more than once", "rename the columns")
            return where
        if (
            isinstance(column, int | np.integer)
            and not isinstance(column, bool)
            and -self.shape[1] <= column < self.shape[1]
        ):
            return int(column) % self.shape[1]
        raise fail("columns", f"names or numbers of {self.shape[1]} columns", repr(column), "pass columns X has")

    def labels(self, mechanism: str, setting: str, used: Iterable[Any]) -> NDArray[Any]:
        """Labels (N,); ValueError without any, or where one that a mechanism's setting uses does not occur."""
        if self.y is None:
            raise fail("y", f"labels, which {mechanism} depends on", None, "pass y=labels of shape (N,)")
        if callable(self.y):
            self.y = self._checked(self.y())
        unknown = set(used) - set(self.y.tolist())
        if unknown:
            raise fail(setting, "labels that occur in y", sorted(map(str, unknown)), "leave them out")
        return self.y

    def _checked(self, y: Any) -> NDArray[Any]:
        labels = np.asarray(y)
        if labels.shape != self.shape[:1]:
            raise fail("y", f"labels of shape ({self.shape[0]},)", labels.shape, "pass one label per row")
        return labels

    def rebuild(self, mask: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Data of the kind that came in, NaN where `mask` (N, D) is False, and the mask in the same kind."""
        if self.frame:
            table_mask = pd.DataFrame(mask, index=self.X.index, columns=self.X.columns)
            return self.X.where(table_mask), table_mask
        if torch.is_tensor(self.X):
            kept = torch.from_numpy(mask).reshape(self.X.shape).to(self.X.device)
            floats = self.X.detach() if self.X.is_floating_point() else self.X.to(torch.get_default_dtype())
            return floats.masked_fill(~kept, float("nan")), kept
        kind = {"f": self.X.dtype, "O": self.X.dtype, "U": np.dtype(object)}.get(self.X.dtype.kind, np.dtype(float))
        out = np.array(self.X, dtype=kind)
        out.reshape(self.shape)[~mask] = np.nan
        return out, mask.reshape(self.X.shape)
