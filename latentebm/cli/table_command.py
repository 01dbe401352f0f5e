"""The command ``table``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from latentebm._version import __version__
from latentebm.checks import fail
from latentebm.cli.console import console, errors_exit, print_table
from latentebm.cli.options import given
from latentebm.cli.table_options import Decimal, Encoding, Na, Sep, named_columns, read_given

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    import pandas as pd

    from latentebm.tables.targets import Target

__all__ = ["parse_target", "table"]

FIX = "pass for example 'income by sex', 'income by sex within occupation at most 0.05', or 'sex: F=0.5, M=0.5'"
TARGETS = "Repeatable: 'income by sex [within job] [at most 0.05]' for parity, 'sex: F=0.5, M=0.5' for shares, or JSON."
INFINITE = ("inf", "infinity")
CATEGORIES = 20  # values of a column of numbers and a text up to which they may be categories, such as 0, 1, 2 and 3+
PARITY = re.compile(r"(?P<outcome>.+?) by (?P<by>.+?)(?: within (?P<within>.+?))?(?: at most (?P<at_most>[\d.]+))?$")


def _option(text: str) -> Any:
    return typer.Option(help=text)


@errors_exit()
def table(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Table: .csv or .tsv (both also .gz), .parquet, or - for a .csv from the input.")
    ],
    out: Annotated[Path, _option("Folder for the report, the model and the drawn rows.")],
    target: Annotated[list[str] | None, _option(TARGETS)] = None,
    reference: Annotated[
        Path | None, _option("Reference table, for targets without shares ('sex'), or, with no target, as a whole.")
    ] = None,
    label: Annotated[
        str | None, _option("Column a classifier learns from drawn rows; by default the outcome of the first parity.")
    ] = None,
    date: Annotated[
        list[str] | None, _option("Column of dates, repeatable; those all written as 2020-12-31 are seen as such.")
    ] = None,
    drop: Annotated[list[str] | None, _option("Column to leave out, such as an identifier, repeatable.")] = None,
    na: Na = None,
    sep: Sep = "",
    decimal: Decimal = ".",
    encoding: Encoding = "utf-8",
    rows: Annotated[int, _option("Rows to draw.")] = 10_000,
    test_share: Annotated[float, _option("Share of the rows held out to judge by.")] = 0.25,
    width: Annotated[int, _option("Hidden units per column.")] = 64,
    steps: Annotated[
        int | None, _option("Training steps of 256 rows; by default six passes over the rows, 100 to 1000 steps.")
    ] = None,
    pool: Annotated[int, _option("Rows that the tilt is fitted on.")] = 100_000,
    seed: Annotated[int, _option("Random seed of the whole run.")] = 0,
    overwrite: Annotated[bool, _option("Replace an earlier run.")] = False,
    tensorboard: Annotated[bool, _option("Also write event files for TensorBoard.")] = False,
) -> None:
    """Learn a table, tilt its generator to target shares or parity, draw rows, report.

    A fit that was stopped or killed goes on where the same is asked for again.

    Example: latentebm table census.csv --target 'income by sex' --out runs/census
    """
    kind, written = _kind(file), (sep, decimal, encoding)
    from latentebm.disk.checkpoint import checkpoints
    from latentebm.disk.folders import run_folder
    from latentebm.report.page import command_line
    from latentebm.report.table_page import table_tables
    from latentebm.tables.judged.table_run import TableJob
    from latentebm.tables.table_debiaser import TableDebiaser
    from latentebm.training.logs import log_file, logged

    asked = {"file": str(file), "reference": str(reference), "target": target, "seed": seed, "steps": steps}
    folder = run_folder(out, overwrite, job={"latentebm": __version__, "table": asked})
    with folder as place, checkpoints(place.kept, keep=True):
        biased = _read(file, "FILE", date, drop, na, written)
        other = None if reference is None else _read(reference, "--reference", date, drop, na, written)
        targets = [parse_target(text, biased) for text in target or []]
        model = TableDebiaser(targets or None, width=width, steps=steps, pool=pool, seed=seed, verbose=True)
        job = TableJob(biased, model, other, label, rows, test_share)
        with logged(log_file(place, tensorboard=tensorboard)):
            metrics = job.judge()
        place.put_log()
        command = command_line("table", file, **given(ctx, but=("file", "overwrite")))
        job.write(place.new, metrics, kind=kind, command=command)
    for part in table_tables(metrics):
        if part.title in ("Targets", "Utility", "Weights and cost"):
            print_table(part.title, part.head, part.rows)
    said = f"report {out / 'report.html'}\nrows   {out / f'samples{kind}'}"
    console.print(escape(said), highlight=False, soft_wrap=True)


def parse_target(text: str, table: pd.DataFrame) -> Target:
    """A target from the command line.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"sex": ["F", "M"], "pay": ["low", "high"], "n": [1, 2]})
        >>> parse_target("pay by sex at most 0.1", table)
        Parity(outcome='pay', by='sex', within=None, given=None, at_most=0.1)
        >>> parse_target("sex: F=0.5", table), parse_target("sex", table).shares
        (Share(column='sex', shares={'F': 0.5}, given=None, bound='equal'), None)
        >>> parse_target('{"mean": "n", "value": 1.5, "given": {"sex": "F"}}', table)
        Mean(column='n', value=1.5, given={'sex': 'F'}, bound='equal')
        >>> parse_target('{"share": ["sex", "n"], "shares": {"F": {"1": 0.4}}}', table).shares
        {('F', 1.0): 0.4}
    """
    from latentebm.tables.parity import Parity
    from latentebm.tables.targets import Share

    if text.lstrip().startswith("{"):
        return _from_json(text, table)
    if text in table.columns:
        return Share(text)
    parity = PARITY.fullmatch(text)
    if parity and parity["by"] in table.columns:
        bound = _number(parity["at_most"] or "0")
        if bound is None:
            raise fail("--target", "a number behind 'at most'", repr(parity["at_most"]), FIX)
        return Parity(parity["outcome"], parity["by"], parity["within"], at_most=bound)
    column, colon, listed = text.partition(":")
    pairs = [part.rpartition("=") for part in listed.split(",")]
    if not colon or not all(value.strip() and _number(share) is not None for value, _, share in pairs):
        raise fail("--target", "a parity, shares of a column, or JSON", repr(text), FIX)
    shares = {_typed(value.strip(), table.get(column.strip())): float(share) for value, _, share in pairs}
    return Share(column.strip(), shares)


def _from_json(text: str, table: pd.DataFrame) -> Target:
    """A target whose kind is the key that names its column: share, mean or parity."""
    from latentebm.tables.parity import Parity
    from latentebm.tables.targets import Mean, Share

    kinds: dict[str, Any] = {"share": (Share, "column"), "mean": (Mean, "column"), "parity": (Parity, "outcome")}
    fix = 'pass for example \'{"share": "sex", "shares": {"F": 0.5}, "given": {"pay": "low"}}\''
    try:
        parts = json.loads(text)
        kind = next(k for k in kinds if k in parts)
        build, first = kinds[kind]
        if isinstance(parts.get("shares"), dict):
            parts["shares"] = _joint(parts["shares"], parts[kind], table)
        made: Target = build(**{first: parts.pop(kind), **parts})
    except (json.JSONDecodeError, StopIteration, TypeError, AttributeError) as error:
        raise fail("--target", "JSON with one of share, mean, parity", f"{text} ({error})", fix) from None
    return made


def _joint(shares: dict[str, Any], column: Any, table: pd.DataFrame) -> dict[Any, Any]:
    """Shares whose values are as their columns hold them; those of several columns are nested, {"F": {"high": 0.1}}."""
    if not isinstance(column, list):
        return {_typed(value, table.get(column)): share for value, share in shares.items()}
    found: dict[Any, Any] = {}
    for value, inner in shares.items():
        first = _typed(value, table.get(column[0]))
        rest = _joint(inner, column[1:] if len(column) > 2 else column[1], table) if isinstance(inner, dict) else {}
        found |= {(first, *(k if isinstance(k, tuple) else (k,))): share for k, share in rest.items()}
        if not rest:
            fix = 'pass for example \'{"share": ["sex", "pay"], "shares": {"F": {"high": 0.1}}}\''
            raise fail("--target", f"shares nested as the columns {column}", repr(inner), fix)
    return found


def _typed(value: str, cells: pd.Series | None) -> Any:
    """A value as its column holds it."""
    from pandas.api import types

    if cells is None or not types.is_numeric_dtype(cells.dtype):
        return value
    if types.is_bool_dtype(cells.dtype):
        return value.lower() in ("true", "1")
    number = _number(value)
    return value if number is None else number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _kind(file: Path) -> str:
    from latentebm.data.formats.table_file import kind_of

    kind = kind_of(file, "FILE")
    if kind == ".npz":
        fix = "write it as a .csv whose first line names the columns"
        raise fail("FILE", ".csv, .tsv (or these and .gz), .parquet or -", "an .npz, whose columns have no names", fix)
    return kind


def _read(
    file: Path,
    name: str,
    dates: list[str] | None,
    drop: list[str] | None,
    na: list[str] | None,
    written: tuple[str, str, str],
) -> pd.DataFrame:
    """The table of a file without some columns, dates as dates and whole numbers as whole numbers."""
    from latentebm.data.formats.dates import as_dates, date_columns

    read = read_given(file, *written, na, name=name)
    values = read.values
    named = {flag: named_columns(flag, given, values) for flag, given in (("--drop", drop), ("--date", dates))}
    values = values.drop(columns=named["--drop"])
    for column, text, count in read.text.spoiled() if read.text is not None else ():
        cells = values.get(column)
        if cells is not None and (text.strip("+-").lower() in INFINITE or cells.nunique() > CATEGORIES):
            fix = f"pass --na '{text}' if it marks a missing cell, or --drop '{column}'"
            raise fail(
                f"{name} {file}", f"numbers in column {column!r}", f"{text!r} in {count} of {len(values)} cells", fix
            )
    seen = date_columns(values)
    for column in [*seen, *(c for c in named["--date"] if c in values and c not in seen)]:
        values[column] = as_dates("--date", column, values[column])
    return values.apply(_whole)


def _whole(cells: pd.Series) -> pd.Series:
    """Whole numbers that a gap or the reader turned into floats, as whole numbers again."""
    import pandas as pd

    if not pd.api.types.is_float_dtype(cells.dtype) or not cells.notna().any():
        return cells
    seen = cells.dropna()
    if bool(((seen % 1 == 0) & (seen.abs() < 2**53)).all()):
        return cells.astype("Int64" if cells.isna().any() else "int64")
    return cells
