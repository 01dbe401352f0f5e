"""One self-contained HTML page about an imputation: where cells are missing, and what was put there."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from latentebm.files import write_text
from latentebm.plots import plot_imputed, plot_missingness

__all__ = ["write_imputation_report"]

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Imputation of {{ name }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;
border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}</style>
<h1>Imputation of {{ name }}</h1>
<p>{{ facts }}</p>
<h2>Where cells are missing</h2><img alt="missingness map" src="data:image/png;base64,{{ map }}">
<h2>What was put there</h2><img alt="observed and imputed marginals" src="data:image/png;base64,{{ marginals }}">
<p>Imputed values that differ from the observed ones are no fault in themselves: where values are missing not at
random, they should differ.</p>
<h2>Columns</h2>
<table><tr><th>column</th><th>missing</th><th>observed mean</th><th>imputed mean</th></tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></html>
"""


def write_imputation_report(
    path: Path | str, table: pd.DataFrame, mask: pd.DataFrame, *, name: str, facts: str
) -> Path:
    """Write the page on a completed table (N, D) and its mask, True = observed, after the title and a line of facts.

    Example:
        >>> import tempfile
        >>> table, mask = pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [True, False]})
        >>> page = write_imputation_report(Path(tempfile.mkdtemp()) / "r.html", table, mask, name="x", facts="mean")
        >>> page.read_text(encoding="utf-8").count("<img")
        2
    """
    rows = [_row(column, table[column], mask[column]) for column in table]
    page = Environment(autoescape=True).from_string(PAGE).render(
        name=name, facts=facts, rows=rows, map=_png(plot_missingness(mask)), marginals=_png(plot_imputed(table, mask))
    )  # fmt: skip
    return write_text(path, page)


def _row(column: Any, values: pd.Series, seen: pd.Series) -> tuple[str, str, str, str]:
    parts = (values[seen], values[~seen])
    means = [f"{part.mean():.4g}" if len(part) and is_numeric_dtype(part) else "–" for part in parts]
    return str(column), f"{(~seen).mean():.1%}", means[0], means[1]


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
