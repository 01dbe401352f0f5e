"""The commands ``impute`` and ``ampute``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentebm.checks import check_choice, check_number, fail
from latentebm.files import check_absent, write_atomic

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    import pandas as pd

__all__ = ["ampute", "impute", "register"]

METHODS = ("miwae", "not-miwae", "mean", "knn", "iterative")
MECHANISMS = ("mcar", "mar", "self-masking", "column-driven", "by-class")


def register(app: typer.Typer, *, errors_exit: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
    """Add both commands to `app`, each run inside `errors_exit()`, which turns mistakes into messages.

    Example:
        >>> app = typer.Typer()
        >>> register(app); [c.name for c in app.registered_commands]
        ['impute', 'ampute']
    """
    for command in (impute, ampute):
        app.command(command.__name__)(_inside(errors_exit, command))


def _inside(
    context: Callable[[], AbstractContextManager[Any]], command: Callable[..., None]
) -> Callable[..., None]:  # fmt: skip
    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        with context():
            command(*args, **options)

    return run


def impute(
    file: Annotated[Path, typer.Argument(help="Table with missing cells: .csv, or .npz with an array (N, D).")],
    out: Annotated[Path, typer.Option(help="Where the completed table goes; .csv or .npz, as the input.")],
    method: Annotated[str, typer.Option(help=f"One of: {', '.join(METHODS)}.")] = "miwae",
    likelihood: Annotated[
        list[str] | None,
        typer.Option(
            help="COLUMN=FAMILY, repeatable: gaussian, student_t, bernoulli or categorical. Text is categorical."
        ),
    ] = None,
    missing_model: Annotated[
        str, typer.Option(help="Of not-miwae: self-masking-known, self-masking or agnostic.")
    ] = "self-masking-known",
    direction: Annotated[str, typer.Option(help="Which values go missing, where known: high or low.")] = "high",
    decoder: Annotated[str, typer.Option(help="mlp, or linear for the probabilistic-PCA form.")] = "mlp",
    latent_dim: Annotated[int, typer.Option(help="Latent dimension.")] = 10,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 4000,
    draws: Annotated[int, typer.Option(help="Importance draws a row.")] = 1000,
    multiple: Annotated[int, typer.Option(help="Also write this many drawn completions, numbered, beside --out.")] = 0,
    report: Annotated[Path | None, typer.Option(help="HTML page; by default beside --out.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Fill the missing cells of a table and report what was put where.

    Example: latentebm impute patients.csv --method not-miwae --direction high --out patients-complete.csv
    """
    from latentebm.missing.imputation_page import write_imputation_report

    check_choice("method", method, METHODS)
    check_suffix(out, file)
    page, copies = report or out.with_suffix(".html"), [f"{out.stem}-{i + 1}{out.suffix}" for i in range(multiple)]
    check_absent([out, page, *map(out.with_name, copies)], overwrite)
    table = read_table(file)
    mask = table.notna()
    imputer = _imputer(
        method, table, families=_families(likelihood, table), missing_model=missing_model, direction=direction,
        decoder=decoder, latent_dim=latent_dim, steps=steps, draws=draws, seed=seed,
    )  # fmt: skip
    if multiple and not hasattr(imputer, "multiple"):
        raise fail("multiple", f"0 with method {method}, which draws nothing", multiple, "use miwae or not-miwae")
    done = _complete(imputer, table)
    write_table(out, done)
    for name, copy in zip(copies, imputer.multiple(table, multiple) if multiple else [], strict=True):
        write_table(out.with_name(name), copy)
    cells = int((~mask).to_numpy().sum())
    facts = f"{cells:,} of {mask.size:,} cells imputed by {method}, seed {seed}."
    page = write_imputation_report(page, done, mask, name=file.name, facts=facts)
    typer.echo(f"{facts}\ntable  {out}\nreport {page}")


def ampute(
    file: Annotated[Path, typer.Argument(help="Complete table: .csv, or .npz with an array (N, D).")],
    out: Annotated[Path, typer.Option(help="Where the table with missing cells goes; .csv or .npz, as the input.")],
    mechanism: Annotated[str, typer.Option(help=f"One of: {', '.join(MECHANISMS)}.")] = "mcar",
    rate: Annotated[
        float, typer.Option(help="Expected share of cells removed from each column that loses some; not for by-class.")
    ] = 0.3,
    column: Annotated[list[str] | None, typer.Option(help="Column that loses cells, repeatable; default all.")] = None,
    driver: Annotated[list[str] | None, typer.Option(help="Column that decides; for by-class, of the classes.")] = None,
    class_rate: Annotated[
        list[str] | None, typer.Option(help="CLASS=RATE, repeatable, for by-class; classes left out lose nothing.")
    ] = None,
    kind: Annotated[str, typer.Option(help="logistic, probit or hard.")] = "logistic",
    direction: Annotated[str, typer.Option(help="Values that go missing: high, low, tails or middle.")] = "high",
    slope: Annotated[float, typer.Option(help="Of logistic and probit, per standard deviation.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Remove cells of a complete table on purpose, to test an imputation.

    Example: latentebm ampute patients.csv --mechanism self-masking --column income --rate 0.3 --out holed.csv
    """
    from latentebm.missing.mechanisms import make_missing

    check_suffix(out, file)
    check_absent([out], overwrite)
    table = read_table(file)
    names = {str(c): c for c in table.columns}  # columns of an .npz are numbers
    columns, drivers = ([names.get(c, c) for c in given] if given else None for given in (column, driver))
    if check_choice("mechanism", mechanism, MECHANISMS) == "by-class":
        law, y = _by_class(table, drivers, class_rate, columns)
        holed, mask = make_missing(table, law, y=y, random_state=seed)
    else:
        law = _mechanism(mechanism, columns, drivers, {"kind": kind, "direction": direction, "slope": slope})
        holed, mask = make_missing(table, law, rate, random_state=seed)
    write_table(out, holed)
    gone = int((~mask).to_numpy().sum() - table.isna().to_numpy().sum())
    typer.echo(f"{gone:,} of {mask.size:,} cells removed by {mechanism}, seed {seed}.\ntable  {out}")


def read_table(file: Path) -> pd.DataFrame:
    """Table of a .csv, or of the array ``x`` (or the only one) of an .npz.

    Raises:
        ValueError: no such file, another suffix, or no single two-dimensional array.
    """
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
    """Hold the output to the input's kind.

    Raises:
        ValueError: the suffixes differ.
    """
    if out.suffix != file.suffix:
        raise fail("out", f"a name ending in {file.suffix}, as the input", out.name, f"pass --out name{file.suffix}")


def _families(likelihood: list[str] | None, table: pd.DataFrame) -> dict[Any, str]:
    from pandas.api.types import is_numeric_dtype

    names = {str(c): c for c in table.columns}
    # A text column of a file can be nothing else: reading it from a .csv is what declares it.
    families: dict[Any, str] = {c: "categorical" for c in table if not is_numeric_dtype(table[c])}
    for entry in likelihood or []:
        column, _, family = entry.partition("=")
        if column not in names or not family:
            raise fail(
                "likelihood", "COLUMN=FAMILY with a column of the table", entry, "pass for example age=student_t"
            )
        families[names[column]] = family
    return families


def _imputer(method: str, table: pd.DataFrame, *, families: dict[Any, str], seed: int, **settings: Any) -> Any:
    from pandas.api.types import is_numeric_dtype

    if method in ("miwae", "not-miwae"):
        from latentebm.missing import MIWAEImputer
        from latentebm.progress import bars

        if method == "miwae":
            settings["missing_model"] = None
        return MIWAEImputer(likelihood=families, random_state=seed, track=bars, **settings)
    text = [c for c in table if not is_numeric_dtype(table[c])]
    if text:
        raise fail("method", "miwae or not-miwae for a table with text", method, f"drop {text}, or change the method")
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    classical = {
        "mean": lambda: SimpleImputer(keep_empty_features=True),
        "knn": lambda: KNNImputer(keep_empty_features=True),
        "iterative": lambda: IterativeImputer(keep_empty_features=True, random_state=seed),
    }
    return classical[method]()


def _complete(imputer: Any, table: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    # Some imputers write into what they are given; a frame's own memory may be read-only.
    X = table if hasattr(imputer, "multiple") else table.to_numpy(dtype=np.float64, copy=True)
    done = imputer.fit(X).transform(X)
    return done if isinstance(done, pd.DataFrame) else pd.DataFrame(done, columns=table.columns, index=table.index)


def _by_class(
    table: pd.DataFrame, drivers: list[Any] | None, rates: list[str] | None, columns: list[Any] | None
) -> tuple[Any, Any]:
    """The mechanism and the labels, as text."""
    from latentebm.missing.mechanisms import ByClass

    if not drivers or len(drivers) != 1 or drivers[0] not in table:
        raise fail("driver", "the one column that holds the classes", drivers, "pass --driver COLUMN")
    parts = [entry.rpartition("=") for entry in rates or []]
    if not parts or not all(label for label, _, _ in parts):
        raise fail("class-rate", "CLASS=RATE at least once", rates, "pass for example --class-rate ill=0.4")
    shares = {label: check_number("class-rate", rate, low=0, high=1) for label, _, rate in parts}
    law = ByClass(shares, columns or [c for c in table if c != drivers[0]])
    return law, table[drivers[0]].astype(str).to_numpy()


def _mechanism(
    name: str, columns: list[Any] | None, drivers: list[Any] | None, shape: dict[str, Any]
) -> Any:  # fmt: skip
    from latentebm.missing.mechanisms import MAR, MCAR, ColumnDriven, SelfMasking

    if name in ("mar", "column-driven") and not drivers:
        raise fail("driver", f"the column {name} depends on", None, "pass --driver COLUMN")
    if name == "mcar":
        return MCAR(columns)
    if name == "self-masking":
        return SelfMasking(columns=columns, **shape)
    chosen = drivers or []
    if name == "mar":
        return MAR(chosen, columns, **shape)
    if len(chosen) != 1:
        raise fail("driver", "one column for column-driven", chosen, "pass --driver once")
    return ColumnDriven(chosen[0], columns, **shape)
