"""What the commands on tables share: options that say how a file is written, and its reading."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentebm.checks import fail, visible
from latentebm.disk.folders import whole_files
from latentebm.disk.outputs import check_files

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    import pandas as pd

    from latentebm.data.formats.table_file import TableFile

__all__ = [
    "FILE", "Decimal", "Encoding", "Na", "Sep", "check_output", "named_columns", "option", "read_given", "reserved",
    "say_done", "text_columns",
]  # fmt: skip


STREAM = "-"  # the standard input or output


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


def check_output(file: Path, out: Path, overwrite: bool) -> Path:
    """Where the table goes; ValueError unless that is of the input's kind, and absent unless it is replaced."""
    from latentebm.data.formats.table_file import check_same_kind

    check_same_kind(out, file)
    return out if str(out) == STREAM else check_files([out], overwrite)[0]


@contextmanager
def reserved(out: Path, job: dict[str, Any], overwrite: bool) -> Iterator[Callable[[Path], Path]]:
    """Where to write a table and what belongs to it, put in place together; a fit that was killed goes on."""
    if str(out) == STREAM:
        yield lambda file: file
        return
    from latentebm.disk.checkpoint import checkpoints

    files = whole_files(out, job=json.loads(json.dumps(job)), afresh=overwrite, replace=overwrite)
    with files as place, checkpoints(place.kept, keep=True):
        yield place.at


def say_done(facts: str, out: Path, report: Path | None = None) -> None:
    """Say what was done and where it is, beside the standard output where that holds the table."""
    lines = [facts, f"table  {out}", *([] if report is None else [f"report {report}"])]
    typer.echo(visible("\n".join(lines)), err=str(out) == STREAM)


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
