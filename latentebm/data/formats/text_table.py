"""Tables in text files, with the text of every cell beside its value, so that nothing read is ever rewritten."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latentebm.checks import fail
from latentebm.data.formats.text_records import plain_cell, split_cells, split_records

__all__ = ["Dialect", "TextTable", "parse_text"]

BLOCK = 50_000  # records turned into columns at once
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
CODE = r"[+-]?0\d+"  # a leading zero makes digits a code: a zip or a phone number
# What other programs write for a missing number, in lower case; in a column of text they may be words.
MARKERS = ("na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na")


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Raises:
        ValueError: the separator or the decimal sign is not one character, or they are the same.

    Example:
        >>> Dialect(sep=";", decimal=",", na=("?",)).sep
        ';'
    """

    sep: str = ","
    decimal: str = "."
    na: tuple[str, ...] = ()  # cells that are missing, besides empty ones

    def __post_init__(self) -> None:
        if len(self.sep) != 1 or self.sep in '"\r\n':
            raise fail("sep", "one character between the cells", repr(self.sep), "pass for example ; (or tab)")
        if self.decimal not in (".", ",") or self.decimal == self.sep:
            raise fail(
                "decimal", "a point or a comma that is not the separator", repr(self.decimal), "pass one of them"
            )


@dataclass
class TextTable:
    r"""A table read from text: cells as they stand there, and what they mean.

    A cell without anything but blanks, or with one of the dialect's markers, is missing. Where all others of a column
    are numbers, the usual words (``NA``, ``nan``, ``null``, …) are missing, too; in a column of text they are text.
    Numbers with leading zeros are codes, and text.

    Example:
        >>> table = parse_text("zip,income\n00501,1e3\n00502,\n", Dialect())
        >>> table.values["zip"].tolist(), table.values["income"].tolist()
        (['00501', '00502'], [1000.0, nan])
        >>> done = table.values.assign(income=[1000.0, 2000.5])
        >>> print(table.render(done, table.values.isna().to_numpy()), end="")
        zip,income
        00501,1e3
        00502,2000.5
    """

    text: pd.DataFrame  # (N, D), str
    dialect: Dialect
    records: list[str]  # the file's parts in order, header and blank lines among them
    rows: list[int]  # the number of each row's record
    newline: str  # ends every record but maybe the last
    values: pd.DataFrame = field(init=False)  # (N, D): float64, or text; NaN where missing

    def __post_init__(self) -> None:
        columns = [_value(self.text.iloc[:, j], self.dialect) for j in range(self.text.shape[1])]
        self.values = pd.concat(columns, axis=1) if columns else self.text

    def render(self, done: pd.DataFrame, changed: NDArray[np.bool_]) -> str:
        """The file's text with the cells of `done` (N, D) where `changed` (N, D) is True, and as it was elsewhere."""
        records, whole = list(self.records), [_whole(self.text.iloc[:, j]) for j in range(self.text.shape[1])]
        columns = [done.iloc[:, j].tolist() for j in range(done.shape[1])]
        for i in np.flatnonzero(changed.any(axis=1)):
            body = records[self.rows[i]]
            cells = split_cells(body.removesuffix("\r"), self.dialect.sep)
            for j in np.flatnonzero(changed[i]):
                cells[j] = self._cell(columns[j][i], whole[j])
            records[self.rows[i]] = self.dialect.sep.join(cells) + ("\r" if body.endswith("\r") else "")
        return self.newline.join(records)

    def spoiled(self) -> Iterator[tuple[Any, str, int]]:
        """Columns of numbers but for a text or two: name, the commonest such text, and its count."""
        for name in self.values:
            cells = self.values[name].dropna()
            if pd.api.types.is_numeric_dtype(cells) or cells.empty:
                continue
            others = cells[~_numbers(cells, self.dialect.decimal)].value_counts()
            if 0 < len(others) <= 2 and others.sum() < len(cells) / 2:
                yield name, str(others.index[0]), int(others.iloc[0])

    def words(self) -> Iterator[tuple[Any, str]]:
        """Columns of text that hold a word other programs write for a missing cell, and the word."""
        for name in self.values:
            cells = self.values[name]
            if not pd.api.types.is_numeric_dtype(cells):
                found = cells[cells.str.strip().str.lower().isin(MARKERS)]
                if len(found):
                    yield name, str(found.iloc[0])

    def _cell(self, value: Any, whole: bool) -> str:
        if pd.isna(value):
            return self.dialect.na[0] if self.dialect.na else ""
        if not isinstance(value, str):
            value = float(value)
            written = str(int(value)) if whole and value.is_integer() else repr(value)
            value = written.replace(".", self.dialect.decimal)
        return (
            '"' + value.replace('"', '""') + '"' if re.search(r'["\r\n]', value) or self.dialect.sep in value else value
        )


def parse_text(text: str, dialect: Dialect, *, name: str = "FILE") -> TextTable:
    r"""Read a table from text whose first record holds the columns' names; errors call it `name`.

    A separator at the end of a record is no further cell. Blank lines are skipped, except in a table of one column,
    where they are missing cells.

    Raises:
        ValueError: no header or rows, two columns of one name, a record of another length (by its line), a quote
            without its end, or a separator, decimal sign or minus that seems to be another one.

    Example:
        >>> parse_text('a,b\n1,2\n3,4,5\n', Dialect())
        Traceback (most recent call last):
        ValueError: FILE: expected 2 cells in each line, got 3 in line 3; correct the line, or quote cells that hold ','
    """
    newline = "\n" if "\n" in text or "\r" not in text else "\r"
    records, lines = split_records(text.split(newline), newline, dialect.sep, name)
    first = next((i for i, body in enumerate(records) if body.strip()), None)
    if first is None:
        raise fail(name, "a line of column names, and rows", "an empty file", "write the names into the first line")
    header = [plain_cell(cell).strip() for cell in split_cells(records[first].removesuffix("\r"), dialect.sep)]
    while len(header) > 1 and not header[-1]:
        header.pop()
    _check_header(header, dialect, name)
    rows = [i for i in range(first + 1, len(records)) if _is_row(records, i, len(header))]
    if not rows:
        raise fail(name, "at least one row below the names", "none", "pass a table with rows")
    cells = _cells(((records[i], lines[i]) for i in rows), header, dialect.sep, name)
    table = TextTable(cells, dialect, records, rows, newline)
    _check_decimal(table, name)
    _check_minus(table, name)
    return table


def _is_row(records: list[str], i: int, width: int) -> bool:
    """Whether a record is no blank line; of one column, a blank line but for what follows the last break is a row."""
    return bool(records[i].strip("\r ")) or (width == 1 and i < len(records) - 1)


def _check_header(header: list[str], dialect: Dialect, name: str) -> None:
    if len(header) == 1:
        other = next((sep for sep in ";\t|," if sep in header[0] and sep != dialect.sep), "")
        if other:
            got = f"one column, {header[0][:60]!r}"
            raise fail(name, f"columns separated by {dialect.sep!r}", got, f"pass sep={_shown(other)}")
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise fail(name, "a name of its own for each column", f"{twice[0]!r} twice", "rename one of them")


MINUS = "[\u2212\u2013]"  # the minus sign, and the dash that stands for it
THOUSANDS = {sign: rf"\s*[+-]?\d{{1,3}}(?:\{sign}\d{{3}})+\s*" for sign in ",."}


def _check_decimal(table: TextTable, name: str) -> None:
    other = {".": ",", ",": "."}[table.dialect.decimal]
    for column in table.values:
        cells = table.values[column].dropna()
        if pd.api.types.is_numeric_dtype(cells) or not cells.str.contains(other, regex=False).any():
            continue
        found = cells[cells.str.contains(other, regex=False)]
        thousands = bool(found.str.fullmatch(THOUSANDS[other]).all())
        others = cells.str.replace(other, "", regex=False) if thousands else cells
        decimal = bool(_numbers(cells, other).all())
        if decimal or bool(_numbers(others, table.dialect.decimal).all()):
            expected = f"numbers with the decimal sign {table.dialect.decimal!r} in column {column!r}"
            fixes = [f"remove each {other} that parts thousands"] * thousands + [f"pass decimal={other}"] * decimal
            raise fail(name, expected, repr(found.iloc[0]), ", or ".join(fixes))


def _check_minus(table: TextTable, name: str) -> None:
    for column in table.values:
        cells = table.values[column].dropna()
        if pd.api.types.is_numeric_dtype(cells):
            continue
        found = cells[cells.str.contains(MINUS)]
        if len(found) and bool(_numbers(cells.str.replace(MINUS, "-", regex=True), table.dialect.decimal).all()):
            got = repr(found.iloc[0])
            raise fail(name, f"numbers with the sign '-' in column {column!r}", got, "write a hyphen for each minus")


def _cells(records: Iterable[tuple[str, int]], header: list[str], sep: str, name: str) -> pd.DataFrame:
    blocks, block = [], []
    width = len(header)
    for body, line in records:
        cells = split_cells(body.removesuffix("\r"), sep)
        if len(cells) == width + 1 and not cells[-1].strip():
            cells.pop()  # a separator at the end
        if len(cells) != width:
            got = f"{len(cells)} in line {line}"
            fix = f"correct the line, or quote cells that hold {sep!r}"
            raise fail(name, f"{width} cells in each line", got, fix)
        block.append([plain_cell(c) for c in cells] if '"' in body else cells)
        if len(block) == BLOCK:
            blocks.append(pd.DataFrame(block, dtype="str"))
            block = []
    blocks += [pd.DataFrame(block, dtype="str")] if block else []
    names = [c or f"column {j + 1}" for j, c in enumerate(header)]
    return pd.concat(blocks, ignore_index=True).set_axis(names, axis=1)


def _numbers(cells: pd.Series, decimal: str) -> pd.Series:
    return cells.str.strip().str.fullmatch(NUMBER.replace(r"\.", re.escape(decimal))).astype(bool)


def _value(cells: pd.Series, dialect: Dialect) -> pd.Series:
    """Numbers where all that is there are some, or text; NaN where missing."""
    stripped = cells.str.strip()
    gone = (stripped == "") | cells.isin(dialect.na) | stripped.isin(dialect.na)
    marked = stripped.str.lower().isin(MARKERS) & ~gone
    seen = stripped[~gone & ~marked]
    digits = bool(_numbers(seen, dialect.decimal).all())
    if not digits or (seen.empty and marked.any()):
        return cells.mask(gone)
    if seen.str.fullmatch(CODE).any():
        return cells.mask(gone | marked)
    values = pd.Series(np.nan, index=cells.index, name=cells.name)
    values[seen.index] = seen.str.replace(dialect.decimal, ".", regex=False).astype(np.float64).to_numpy()
    return values


def _whole(cells: pd.Series) -> bool:
    return not bool(cells.str.contains(r"[.,eE]").any())


def _shown(sep: str) -> str:
    return "tab" if sep == "\t" else f"'{sep}'"
