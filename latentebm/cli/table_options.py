"""What the commands on tables share: options that say how a file is written, and its reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentebm.checks import fail, visible
from latentebm.files import check_absent

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    import pandas as pd

    from latentebm.data.formats.table_file import TableFile

__all__ = [
    "FILE", "Decimal", "Encoding", "Na", "Sep", "check_outputs", "named_columns", "option", "read_given", "say_done",
    "text_columns",
]  # fmt: skip


def option(text: str) -> Any:
    """An option with this help."""
    return typer.Option(help=text)


FILE = ".csv or .tsv, also with .gz, .parquet, .npz with an array x of (N, D), or - for a .csv from standard input."
Sep = Annotated[str, option("Of text: the character between cells, or tab; a comma by default, a tab in a .tsv.")]
Decimal = Annotated[str, option("Of text: the decimal sign of numbers, . or a comma.")]
Encoding = Annotated[str, option("Of text: its encoding.")]
Na = Annotated[
    list[str] | None,
    option("Of text: what marks a missing cell, repeatable. Empty cells do, and NA, nan or null among numbers."),
]


def read_given(
    file: Path, sep: str, decimal: str, encoding: str, na: Sequence[str] | None, *, name: str = "FILE"
) -> TableFile:  # fmt: skip
    """The table of a file; an empty separator is a tab in a .tsv and a comma elsewhere."""
    from latentebm.data.formats.table_file import read_table_file
    from latentebm.data.formats.text_table import Dialect

    tab = ".tsv" in [s.lower() for s in file.suffixes[-2:]]
    named = {"tab": "\t", "\\t": "\t", "": "\t" if tab else ","}
    return read_table_file(file, Dialect(named.get(sep, sep), decimal, tuple(na or ())), encoding=encoding, name=name)


def check_outputs(file: Path, out: Path, others: Sequence[Path | None], overwrite: bool) -> None:
    """ValueError unless the table's output is of the input's kind, and no file of them all exists unless replaced."""
    from latentebm.data.formats.table_file import check_same_kind

    check_same_kind(out, file)
    check_absent([path for path in (out, *others) if path is not None and str(path) != "-"], overwrite)


def say_done(facts: str, out: Path, report: Path | None = None) -> None:
    """Say what was done and where it is, beside the standard output where that holds the table."""
    lines = [facts, f"table  {out}", *([] if report is None else [f"report {report}"])]
    typer.echo(visible("\n".join(lines)), err=str(out) == "-")


def text_columns(table: pd.DataFrame) -> list[Any]:
    """Names of the columns that hold no numbers."""
    from pandas.api.types import is_numeric_dtype

    return [c for c in table if not is_numeric_dtype(table[c])]


def named_columns(flag: str, given: Sequence[str] | None, table: pd.DataFrame) -> list[Any]:
    """The columns that were typed; ValueError for others than the table has."""
    names = {str(c): c for c in table.columns}  # columns of an .npz are numbers
    unknown = [c for c in given or [] if c not in names]
    if unknown:
        raise fail(flag, "columns of the table", unknown, f"pass some of {', '.join(list(names)[:10])}")
    return [names[c] for c in given or []]
