"""The command ``impute``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentebm.checks import check_choice, check_int, fail, visible
from latentebm.cli.console import errors_exit
from latentebm.cli.options import given
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
    text_columns,
)  # fmt: skip
from latentebm.disk.outputs import check_files

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    import pandas as pd

    from latentebm.data.formats.table_file import TableFile

__all__ = ["impute"]

DEEP = ("miwae", "not-miwae")
METHODS = (*DEEP, "mean", "knn", "iterative")
CHOICES = {
    "missing_model": ("self-masking", "self-masking-known", "agnostic"),
    "direction": ("high", "low"),
    "decoder": ("mlp", "linear"),
}


@errors_exit()
def impute(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help=f"Table with missing cells: {FILE}")],
    out: Annotated[Path, option("File for the completed table, of the same type as the input; - for standard output.")],
    method: Annotated[str, option(f"One of: {', '.join(METHODS)}.")] = "miwae",
    likelihood: Annotated[
        list[str] | None,
        option("COLUMN=FAMILY, repeatable: gaussian, student_t, bernoulli, categorical. Text is categorical."),
    ] = None,
    missing_model: Annotated[
        str, option("Model of the mask, for not-miwae: self-masking-known, self-masking or agnostic.")
    ] = "self-masking-known",
    direction: Annotated[str, option("Values that go missing, for self-masking-known: high or low.")] = "high",
    decoder: Annotated[str, option("Decoder: mlp, or linear (probabilistic PCA; numeric columns only).")] = "mlp",
    latent_dim: Annotated[int, option("Number of latent dimensions.")] = 10,
    steps: Annotated[int, option("Training steps.")] = 1500,
    draws: Annotated[int, option("Importance draws per row.")] = 1000,
    multiple: Annotated[int, option("Also write this many random completions, as OUT-1, OUT-2, …")] = 0,
    report: Annotated[Path | None, option("File for the HTML report; beside --out by default.")] = None,
    sep: Sep = "",
    decimal: Decimal = ".",
    encoding: Encoding = "utf-8",
    na: Na = None,
    seed: Annotated[int, option("Random seed.")] = 0,
    overwrite: Annotated[bool, option("Replace existing files.")] = False,
) -> None:
    """Fill in the missing cells of a table, and report what was put where.

    Example: latentebm impute patients.csv --method not-miwae --direction high --out patients-complete.csv
    """
    check_choice("--method", method, METHODS)
    for name, value in {"missing_model": missing_model, "direction": direction, "decoder": decoder}.items():
        check_choice(name, value, CHOICES[name])
    out = check_output(file, out, overwrite)
    page, copies = _page(out, report), _copies(out, multiple, method)
    check_files([*copies, *([] if page is None else [page])], overwrite)
    settings = {"decoder": decoder, "latent_dim": latent_dim, "steps": steps, "draws": draws, "direction": direction}
    known = missing_model if method == "not-miwae" else None
    job = {"file": str(file), "method": method, "seed": seed, "likelihood": likelihood, "missing": known, **settings}
    with reserved(out, job, overwrite) as at:
        read = read_given(file, sep, decimal, encoding, na)
        table, families = _declared(read, likelihood)
        imputer = _imputer(method, table, likelihood=families, missing_model=known, random_state=seed, **settings)
        gone = _gaps(read, table)
        facts = f"{int(gone.sum()):,} of {gone.size:,} cells imputed by {method}, seed {seed}."
        done = _filled(imputer, table, method)
        read.write(at(out), done, gone)
        for copy, drawn in zip(copies, imputer.multiple(table, multiple) if copies else [], strict=True):
            read.write(at(copy), drawn, gone)
        if page is not None:
            from latentebm.missing.imputation_report import write_imputation_report
            from latentebm.report.page import command_line

            made_by = command_line("impute", file, **given(ctx, but=("file", "overwrite")))
            write_imputation_report(at(page), done, table.notna(), name=file.name, facts=facts, command=made_by)
    say_done(facts, out, page)


def _filled(imputer: Any, table: pd.DataFrame, method: str) -> pd.DataFrame:
    """The table without gaps."""
    import pandas as pd

    # Some imputers write into what they are given, and a frame's own memory may be read-only.
    for column in () if method in DEEP else table.columns[table.isna().all()]:
        typer.echo(visible(f"note: column {column} has no observed cell: it is filled with 0"), err=True)
    X = table if method in DEEP else table.to_numpy(dtype="float64", na_value=float("nan"), copy=True)
    return pd.DataFrame(imputer.fit(X).transform(X), index=table.index).set_axis(table.columns, axis=1)


def _declared(read: TableFile, likelihood: Sequence[str] | None) -> tuple[pd.DataFrame, dict[Any, str]]:
    """The table and the families of columns: those that were named, and categorical for text.

    A text column of a file can be nothing else: reading it from there is what declares it.
    """
    declared = _families(likelihood, read.values)
    table = _as_declared(read, declared)
    _check_spoiled(read, declared)
    _check_finite(read)
    return table, dict.fromkeys(text_columns(table), "categorical") | declared


def _as_declared(read: TableFile, declared: dict[Any, str]) -> pd.DataFrame:
    """The values, where what is declared categorical has the texts of its cells as classes."""
    if read.text is None:
        return read.values
    table = read.values.copy()
    for column, family in declared.items():
        if family == "categorical":
            table[column] = read.text.text[column].mask(read.values[column].isna())
    return table


def _check_spoiled(read: TableFile, declared: dict[Any, str]) -> None:
    """Raise ValueError where a marker of missing cells seems to have turned numbers into text."""
    for column, marker, count in read.text.spoiled() if read.text is not None else ():
        if declared.get(column) != "categorical":
            got = f"{marker!r} in {count} of {len(read.values)} cells"
            fix = f"pass na={marker!r} if it marks a missing cell, or --likelihood '{column}=categorical' for classes"
            raise fail(f"FILE {read.file}", f"numbers in column {column!r}", got, fix)


def _check_finite(read: TableFile) -> None:
    """Raise ValueError where a number is infinite, or too large to be told from that."""
    for column, cells in read.values.select_dtypes("float").items():
        if infinite := int((cells.abs() == float("inf")).sum()):
            got = f"{infinite} infinite of {len(cells)}"
            raise fail(f"FILE {read.file}", f"finite numbers in column {column!r}", got, "empty or correct the cells")


def _gaps(read: TableFile, table: pd.DataFrame) -> Any:
    """Which cells are missing (N, D); ValueError without any, and a note on words that often stand for some."""
    gone = table.isna().to_numpy()
    words = list(read.text.words()) if read.text is not None else []
    if not gone.any():
        fix = f"pass na={words[0][1]} if that marks one" if words else "pass na=MARKER with what marks them"
        raise fail(f"FILE {read.file}", "missing cells", f"none in {gone.size:,} cells", fix)
    for column, word in words:
        said = f"note: {word} in column {column} is text; pass --na {word} if it marks a missing cell"
        typer.echo(visible(said), err=True)
    return gone


def _page(out: Path, report: Path | None) -> Path | None:
    """Where the report goes: beside the table, and nowhere unasked where that goes to the standard output."""
    return report or (None if str(out) == "-" else _beside(out, "", ".html"))


def _copies(out: Path, multiple: int, method: str) -> list[Path]:
    if check_int("--multiple", multiple, low=0) and method not in DEEP:
        fix = "pass --method miwae or not-miwae"
        raise fail("--multiple", f"0 with --method {method}, which draws nothing at random", multiple, fix)
    if multiple and str(out) == "-":
        raise fail("--multiple", "0 where the table goes to the standard output", multiple, "pass --out FILE")
    return [_beside(out, f"-{i + 1}") for i in range(multiple)]


def _beside(out: Path, ending: str, suffix: str | None = None) -> Path:
    """A file beside a table, of its name with an ending: before both suffixes of a compressed table."""
    kind = "".join(out.suffixes[-2:]) if out.suffix.lower() == ".gz" else out.suffix
    return out.with_name(out.name.removesuffix(kind) + ending + (kind if suffix is None else suffix))


def _families(likelihood: Sequence[str] | None, table: pd.DataFrame) -> dict[Any, str]:
    parts = [entry.rpartition("=") for entry in likelihood or []]
    if not all(column and family for column, _, family in parts):
        fix = f"pass for example --likelihood {table.columns[0]}=student_t"
        raise fail("--likelihood", "COLUMN=FAMILY", likelihood, fix)
    columns = named_columns("--likelihood", [column for column, _, _ in parts], table)
    return {column: family for column, (_, _, family) in zip(columns, parts, strict=True)}


def _imputer(method: str, table: pd.DataFrame, **settings: Any) -> Any:
    if method in DEEP:
        from latentebm.missing import MIWAEImputer
        from latentebm.progress import bars

        return MIWAEImputer(track=bars, **settings)
    text = text_columns(table)
    if text:
        fix = f"drop {text}, or pass --method miwae"
        raise fail("--method", "miwae or not-miwae for a table with text", method, fix)
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    options = {"random_state": settings["random_state"]} if method == "iterative" else {}
    build: Any = {"mean": SimpleImputer, "knn": KNNImputer, "iterative": IterativeImputer}[method]
    return build(keep_empty_features=True, **options)
