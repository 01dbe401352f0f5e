"""The commands ``impute`` and ``ampute``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.cli.console import errors_exit
from latentebm.files import check_absent, write_atomic

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    import pandas as pd

__all__ = ["ampute", "impute"]

DEEP = ("miwae", "not-miwae")
METHODS = (*DEEP, "mean", "knn", "iterative")
MECHANISMS = ("mcar", "mar", "self-masking", "column-driven", "by-class")


def _option(text: str) -> Any:
    return typer.Option(help=text)


@errors_exit()
def impute(
    file: Annotated[Path, typer.Argument(help="Table with missing cells: .csv, or .npz with an array x of (N, D).")],
    out: Annotated[Path, _option("File for the completed table, of the same type as the input.")],
    method: Annotated[str, _option(f"One of: {', '.join(METHODS)}.")] = "miwae",
    likelihood: Annotated[
        list[str] | None,
        _option("COLUMN=FAMILY, repeatable: gaussian, student_t, bernoulli, categorical. Text is categorical."),
    ] = None,
    missing_model: Annotated[
        str, _option("Model of the mask, for not-miwae: self-masking-known, self-masking or agnostic.")
    ] = "self-masking-known",
    direction: Annotated[str, _option("Values that go missing, for self-masking-known: high or low.")] = "high",
    decoder: Annotated[str, _option("Decoder: mlp, or linear (probabilistic PCA; numeric columns only).")] = "mlp",
    latent_dim: Annotated[int, _option("Number of latent dimensions.")] = 10,
    steps: Annotated[int, _option("Training steps.")] = 4000,
    draws: Annotated[int, _option("Importance draws per row.")] = 1000,
    multiple: Annotated[int, _option("Also write this many random completions, as OUT-1, OUT-2, …")] = 0,
    report: Annotated[Path | None, _option("File for the HTML report; beside --out by default.")] = None,
    seed: Annotated[int, _option("Random seed.")] = 0,
    overwrite: Annotated[bool, _option("Replace existing files.")] = False,
) -> None:
    """Fill in the missing cells of a table, and report what was put where.

    Example: latentebm impute patients.csv --method not-miwae --direction high --out patients-complete.csv
    """
    check_choice("--method", method, METHODS)
    check_suffix(out, file)
    page, copies = report or out.with_suffix(".html"), _copies(out, multiple, method)
    check_absent([out, page, *copies], overwrite)
    import pandas as pd

    from latentebm.missing.imputation_report import write_imputation_report

    table = read_table(file)
    settings = {"decoder": decoder, "latent_dim": latent_dim, "steps": steps, "draws": draws, "direction": direction}
    families = _families(likelihood, table)
    known = missing_model if method == "not-miwae" else None
    imputer = _imputer(method, table, likelihood=families, missing_model=known, random_state=seed, **settings)
    # Some imputers write into what they are given, and a frame's own memory may be read-only.
    X = table if method in DEEP else table.to_numpy(dtype="float64", copy=True)
    done = pd.DataFrame(imputer.fit(X).transform(X), index=table.index).set_axis(table.columns, axis=1)
    write_table(out, done)
    for copy, drawn in zip(copies, imputer.multiple(table, multiple) if copies else [], strict=True):
        write_table(copy, drawn)
    gone = table.isna().to_numpy()
    facts = f"{int(gone.sum()):,} of {gone.size:,} cells imputed by {method}, seed {seed}."
    page = write_imputation_report(page, done, table.notna(), name=file.name, facts=facts)
    typer.echo(f"{facts}\ntable  {out}\nreport {page}")


@errors_exit()
def ampute(
    file: Annotated[Path, typer.Argument(help="Complete table: .csv, or .npz with an array x of (N, D).")],
    out: Annotated[Path, _option("File for the table with missing cells, of the same type as the input.")],
    mechanism: Annotated[str, _option(f"One of: {', '.join(MECHANISMS)}.")] = "mcar",
    rate: Annotated[
        float, _option("Expected share of cells removed from each affected column; unused by by-class.")
    ] = 0.3,
    column: Annotated[list[str] | None, _option("Column that loses cells, repeatable; all by default.")] = None,
    driver: Annotated[
        list[str] | None, _option("Column the loss depends on, for mar, column-driven and by-class (its classes).")
    ] = None,
    class_rate: Annotated[
        list[str] | None, _option("CLASS=RATE, repeatable, for by-class; other classes lose nothing.")
    ] = None,
    kind: Annotated[str, _option("How the probability rises: logistic, probit or hard (a limit).")] = "logistic",
    direction: Annotated[str, _option("Values that go missing: high, low, tails or middle.")] = "high",
    slope: Annotated[float, _option("Slope of logistic and probit, per standard deviation.")] = 2.0,
    seed: Annotated[int, _option("Random seed.")] = 0,
    overwrite: Annotated[bool, _option("Replace an existing file.")] = False,
) -> None:
    """Remove cells of a complete table on purpose, to test an imputation.

    Example: latentebm ampute patients.csv --mechanism self-masking --column income --rate 0.3 --out holed.csv
    """
    check_choice("--mechanism", mechanism, MECHANISMS)
    check_suffix(out, file)
    check_absent([out], overwrite)
    from latentebm.missing.mechanisms import make_missing

    table = read_table(file)
    columns, drivers = _columns("--column", column, table), _columns("--driver", driver, table)
    if mechanism == "by-class":
        remover, y = _by_class(table, drivers, class_rate, columns)
        holed, mask = make_missing(table, remover, y=y, random_state=seed)
    else:
        remover = _mechanism(mechanism, columns, drivers, {"kind": kind, "direction": direction, "slope": slope})
        holed, mask = make_missing(table, remover, rate, random_state=seed)
    write_table(out, holed)
    gone = int((~mask).to_numpy().sum() - table.isna().to_numpy().sum())
    typer.echo(f"{gone:,} of {mask.size:,} cells removed by {mechanism}, seed {seed}.\ntable  {out}")


def read_table(file: Path) -> pd.DataFrame:
    """Table of a .csv, or of the array ``x`` (or the only one) of an .npz; ValueError for anything else."""
    import numpy as np
    import pandas as pd

    if not file.is_file():
        raise fail("FILE", "an existing file", str(file), "check the path")
    if file.suffix == ".csv":
        return pd.read_csv(file)
    if file.suffix != ".npz":
        raise fail("FILE", ".csv or .npz", file.suffix, "convert it")
    with np.load(file, allow_pickle=False) as arrays:
        name = "x" if "x" in arrays.files or len(arrays.files) != 1 else arrays.files[0]
        if name not in arrays.files or arrays[name].ndim != 2:
            raise fail("FILE", "an array x of shape (N, D)", arrays.files, "save it with numpy.savez(file, x=table)")
        return pd.DataFrame(arrays[name])


def write_table(out: Path, table: pd.DataFrame) -> None:
    """Write a .csv, or an .npz with the array ``x``, whole or not at all."""
    import numpy as np

    if out.suffix == ".csv":
        write_atomic(out, lambda p: table.to_csv(p, index=False))
    else:
        write_atomic(out, lambda p: np.savez_compressed(p, x=table.to_numpy(dtype=np.float64)))


def check_suffix(out: Path, file: Path) -> None:
    """Raise ValueError unless the output has the input's suffix."""
    if out.suffix != file.suffix:
        raise fail("--out", f"a name ending in {file.suffix}, as the input", out.name, f"pass --out name{file.suffix}")


def _copies(out: Path, multiple: int, method: str) -> list[Path]:
    if check_int("--multiple", multiple, low=0) and method not in DEEP:
        fix = "pass --method miwae or not-miwae"
        raise fail("--multiple", f"0 with --method {method}, which draws nothing at random", multiple, fix)
    return [out.with_name(f"{out.stem}-{i + 1}{out.suffix}") for i in range(multiple)]


def _text(table: pd.DataFrame) -> list[Any]:
    from pandas.api.types import is_numeric_dtype

    return [c for c in table if not is_numeric_dtype(table[c])]


def _columns(flag: str, given: Sequence[str] | None, table: pd.DataFrame) -> list[Any]:
    names = {str(c): c for c in table.columns}  # columns of an .npz are numbers
    unknown = [c for c in given or [] if c not in names]
    if unknown:
        raise fail(flag, "columns of the table", unknown, f"pass some of {', '.join(list(names)[:10])}")
    return [names[c] for c in given or []]


def _families(likelihood: Sequence[str] | None, table: pd.DataFrame) -> dict[Any, str]:
    parts = [entry.rpartition("=") for entry in likelihood or []]
    if not all(column and family for column, _, family in parts):
        fix = f"pass for example --likelihood {table.columns[0]}=student_t"
        raise fail("--likelihood", "COLUMN=FAMILY", likelihood, fix)
    columns = _columns("--likelihood", [column for column, _, _ in parts], table)
    # A text column of a file can be nothing else: reading it from a .csv is what declares it.
    text = dict.fromkeys(_text(table), "categorical")
    return text | {column: family for column, (_, _, family) in zip(columns, parts, strict=True)}


def _imputer(method: str, table: pd.DataFrame, **settings: Any) -> Any:
    if method in DEEP:
        from latentebm.missing import MIWAEImputer
        from latentebm.progress import bars

        return MIWAEImputer(track=bars, **settings)
    text = _text(table)
    if text:
        fix = f"drop {text}, or pass --method miwae"
        raise fail("--method", "miwae or not-miwae for a table with text", method, fix)
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    options = {"random_state": settings["random_state"]} if method == "iterative" else {}
    build: Any = {"mean": SimpleImputer, "knn": KNNImputer, "iterative": IterativeImputer}[method]
    return build(keep_empty_features=True, **options)


def _by_class(
    table: pd.DataFrame, drivers: list[Any], rates: list[str] | None, columns: list[Any]
) -> tuple[Any, Any]:  # fmt: skip
    """The mechanism and the labels, as text."""
    from latentebm.missing.mechanisms import ByClass

    if len(drivers) != 1:
        raise fail("--driver", "the one column that holds the classes", drivers, "pass --driver COLUMN")
    parts = [entry.rpartition("=") for entry in rates or []]
    if not parts or not all(label for label, _, _ in parts):
        raise fail("--class-rate", "CLASS=RATE at least once", rates, "pass for example --class-rate ill=0.4")
    shares = {label: check_number("--class-rate", rate, low=0, high=1) for label, _, rate in parts}
    remover = ByClass(shares, columns or [c for c in table if c != drivers[0]])
    return remover, table[drivers[0]].astype(str).to_numpy()


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
