"""The page about an imputation: where cells are missing, and what was put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from latentebm.files import write_text
from latentebm.plots import mean_shifts, plot_imputed, plot_missingness
from latentebm.report.page import Page, drawn, render_page
from latentebm.report.run_tables import Table

__all__ = ["write_imputation_report"]

MUCH, NARROW = 0.5, 0.8  # share of a column's cells; spread of imputed values, of the observed ones'
MNAR = (
    "Imputed values that differ from the observed ones are no fault in themselves: where values are missing not at "
    "random, they should differ."
)


def write_imputation_report(
    path: Path | str, table: pd.DataFrame, mask: pd.DataFrame, *, name: str, facts: str, command: str = ""
) -> Path:
    """Write the page on a completed table (N, D) and its mask, True = observed, with a line of facts.

    Example:
        >>> import tempfile
        >>> table, mask = pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [True, False]})
        >>> page = write_imputation_report(Path(tempfile.mkdtemp()) / "r.html", table, mask, name="x", facts="mean")
        >>> "<h1>x: 50.0 % of the cells were missing</h1>" in page.read_text(encoding="utf-8")
        True
    """
    share = 1 - float(mask.to_numpy().mean())
    where = f"{100 * share:.1f} % of the cells are missing, in {int((~mask).any().sum())} of {mask.shape[1]} columns."
    put = f"Observed (blue) and imputed (orange) values of the columns that lost most. {_shift(table, mask)}"
    page = Page(
        title=f"latentebm: imputation of {name}",
        headline=f"{name}: {100 * share:.1f} % of the cells were missing",
        lead=f"{facts} {_shift(table, mask)}",
        finding=drawn(plot_imputed(table, mask), put, put),
        pictures=[drawn(plot_missingness(mask), f"A map of the cells. {where}", where)],
        worries=[*_worries(table, mask), MNAR],
        tables=[_columns(table, mask)],
        command=command,
    )
    return write_text(path, render_page(page))


def _shift(table: pd.DataFrame, mask: pd.DataFrame) -> str:
    shifts = mean_shifts(table, mask)
    if not shifts:
        return ""
    most = max(shifts, key=lambda n: abs(shifts[n]))
    return f"Imputed means differ most from observed ones in {most}, by {shifts[most]:+.1f} standard deviations."


def _worries(table: pd.DataFrame, mask: pd.DataFrame) -> list[str]:
    lost = 1 - mask.mean()
    found = []
    if unseen := [str(column) for column in table if lost[column] == 1]:
        found.append(f"Nothing was observed in: {', '.join(unseen[:10])}. What stands there is no estimate.")
    if many := [str(column) for column in table if MUCH < lost[column] < 1]:
        found.append(f"More than half of the cells were missing in: {', '.join(many[:10])}.")
    narrow = [str(column) for column in table if _spread(table[column], mask[column]) < NARROW]
    if narrow:
        found.append(
            f"Imputed values spread less than observed ones in: {', '.join(narrow[:10])}. They are likely values, one "
            "for each cell; for standard errors take --multiple, whose completions differ as the missing values may."
        )
    return found


def _spread(values: pd.Series, seen: pd.Series) -> float:
    """Standard deviation of imputed values over that of observed ones; one where there are too few."""
    if not is_numeric_dtype(values) or min(seen.sum(), (~seen).sum()) < 3 or not values[seen].std() > 0:
        return 1.0
    return float(values[~seen].std() / values[seen].std())


def _columns(table: pd.DataFrame, mask: pd.DataFrame) -> Table:
    rows = [_row(column, table[column], mask[column]) for column in table]
    head = ["column", "missing", "observed mean", "imputed mean"]
    return Table("Columns", "Means of numbers; a dash where there is none.", head, rows)


def _row(column: Any, values: pd.Series, seen: pd.Series) -> list[str]:
    parts = (values[seen], values[~seen])
    means = [f"{part.mean():.4g}" if len(part) and is_numeric_dtype(part) else "–" for part in parts]
    return [str(column), f"{100 * (~seen).mean():.1f} %", *means]
