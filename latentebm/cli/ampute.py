"""The command ``ampute``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.cli.console import errors_exit
from latentebm.cli.table_options import (
    FILE,
    Decimal,
    Encoding,
    Na,
    Sep,
    check_output,
    named_columns,
    option,
    read_given,
    reserved,
    say_done,
)  # fmt: skip

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    from latentebm.data.formats.table_file import TableFile

__all__ = ["ampute"]

KINDS, DIRECTIONS = ("hard", "probit", "logistic"), ("high", "low", "tails", "middle")
MECHANISMS = ("mcar", "mar", "self-masking", "column-driven", "by-class")
DRIVEN = ("mar", "column-driven", "by-class")


@errors_exit()
def ampute(
    file: Annotated[Path, typer.Argument(help=f"Complete table: {FILE}")],
    out: Annotated[Path, option("File for the table with missing cells, of the same type as the input, or -.")],
    mechanism: Annotated[str, option(f"One of: {', '.join(MECHANISMS)}.")] = "mcar",
    rate: Annotated[
        float, option("Expected share of cells removed from each affected column; unused by by-class.")
    ] = 0.3,
    column: Annotated[list[str] | None, option("Column that loses cells, repeatable; all by default.")] = None,
    driver: Annotated[
        list[str] | None, option("Column the loss depends on, for mar, column-driven and by-class (its classes).")
    ] = None,
    class_rate: Annotated[
        list[str] | None, option("CLASS=RATE, repeatable, for by-class; other classes lose nothing.")
    ] = None,
    kind: Annotated[str, option("How the probability rises: logistic, probit or hard (a limit).")] = "logistic",
    direction: Annotated[str, option("Values that go missing: high, low, tails or middle.")] = "high",
    slope: Annotated[float, option("Slope of logistic and probit, per standard deviation.")] = 2.0,
    sep: Sep = "",
    decimal: Decimal = ".",
    encoding: Encoding = "utf-8",
    na: Na = None,
    seed: Annotated[int, option("Random seed.")] = 0,
    overwrite: Annotated[bool, option("Replace an existing file.")] = False,
) -> None:
    """Remove cells of a complete table on purpose, to test an imputation.

    Example: latentebm ampute patients.csv --mechanism self-masking --column income --rate 0.3 --out holed.csv
    """
    check_choice("--mechanism", mechanism, MECHANISMS)
    check_choice("kind", kind, KINDS)
    check_choice("direction", direction, DIRECTIONS)
    check_int("seed", seed, low=0)
    for name, given, users in (("--class-rate", class_rate, MECHANISMS[4:]), ("--driver", driver, DRIVEN)):
        if given and mechanism not in users:
            fix = f"pass --mechanism {users[0]}, or leave it out"
            raise fail(name, f"none with --mechanism {mechanism}", given, fix)
    out = check_output(file, out, overwrite)
    with reserved(out, {}, overwrite) as at:
        from latentebm.missing.mechanisms import make_missing

        read = read_given(file, sep, decimal, encoding, na)
        table = read.values
        columns, drivers = named_columns("--column", column, table), named_columns("--driver", driver, table)
        if mechanism == "by-class":
            remover, y = _by_class(read, drivers, class_rate, columns)
            holed, mask = make_missing(table, remover, y=y, random_state=seed)
        else:
            remover = _mechanism(mechanism, columns, drivers, {"kind": kind, "direction": direction, "slope": slope})
            holed, mask = make_missing(table, remover, rate, random_state=seed)
        gone = (table.notna() & ~mask).to_numpy()
        read.write(at(out), holed, gone)
    say_done(f"{int(gone.sum()):,} of {gone.size:,} cells removed by {mechanism}, seed {seed}.", out)


def _by_class(read: TableFile, drivers: list[Any], rates: list[str] | None, columns: list[Any]) -> tuple[Any, Any]:
    """The mechanism and the labels, as text."""
    from latentebm.missing.mechanisms import ByClass

    if len(drivers) != 1:
        raise fail("--driver", "the one column that holds the classes", drivers, "pass --driver COLUMN")
    parts = [entry.rpartition("=") for entry in rates or []]
    if not parts or not all(label for label, _, _ in parts):
        raise fail("--class-rate", "CLASS=RATE at least once", rates, "pass for example --class-rate ill=0.4")
    shares = {label: check_number("--class-rate", rate, low=0, high=1) for label, _, rate in parts}
    remover = ByClass(shares, columns or [c for c in read.values if c != drivers[0]])
    labels = read.values if read.text is None else read.text.text
    return remover, labels[drivers[0]].astype(str).to_numpy()


def _mechanism(name: str, columns: list[Any], drivers: list[Any], shape: dict[str, Any]) -> Any:
    from latentebm.missing.mechanisms import MAR, MCAR, ColumnDriven, SelfMasking

    if name == "mcar":
        return MCAR(columns or None)
    if name == "self-masking":
        return SelfMasking(columns=columns or None, **shape)
    if not drivers:
        raise fail("--driver", f"the column {name} depends on", None, "pass --driver COLUMN")
    if name == "mar":
        return MAR(drivers, columns or None, **shape)
    if len(drivers) != 1:
        raise fail("--driver", "one column for column-driven", drivers, "pass --driver once")
    return ColumnDriven(drivers[0], columns or None, **shape)
