"""One self-contained HTML page about an imputation: where cells are missing, and what was put there."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from latentebm.files import write_text

__all__ = ["marginals", "missingness_map", "write_imputation_report"]

OBSERVED, IMPUTED = "#0072B2", "#D55E00"  # blue and vermilion, told apart by every common colour vision
PRESENT = "#E8EEF2"
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
        name=name, facts=facts, rows=rows, map=_png(missingness_map(mask)), marginals=_png(marginals(table, mask))
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


def missingness_map(mask: pd.DataFrame, *, rows: int = 500) -> Figure:
    """Map of observed and missing cells, at most `rows` rows, evenly spaced and kept in order.

    Example:
        >>> missingness_map(pd.DataFrame({"a": [True, False]})).axes[0].get_title()
        '50.0% of the cells are missing (orange)'
    """
    keep = np.unique(np.linspace(0, len(mask) - 1, min(rows, len(mask))).astype(int))
    share = 1 - mask.mean()
    figure = Figure(figsize=(min(14.0, 3 + 0.3 * mask.shape[1]), 4.8), layout="constrained")
    axes = figure.add_subplot()
    image = np.where(mask.to_numpy()[keep][..., None], to_rgb(PRESENT), to_rgb(IMPUTED))
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=(-0.5, mask.shape[1] - 0.5, len(mask), 0))
    ticks = np.arange(mask.shape[1])[:: max(1, mask.shape[1] // 40)]
    axes.set_xticks(ticks, [f"{mask.columns[j]} ({share.iloc[j]:.0%})" for j in ticks], rotation=90, fontsize=9)
    axes.set(ylabel="row", title=f"{1 - mask.to_numpy().mean():.1%} of the cells are missing (orange)")
    return figure


def marginals(table: pd.DataFrame, mask: pd.DataFrame, *, most: int = 12) -> Figure:
    """Observed against imputed values of the `most` columns that lost most, each as a share of its own cells.

    Example:
        >>> table, mask = pd.DataFrame({"a": [1.0, 3.0, 4.0]}), pd.DataFrame({"a": [True, True, False]})
        >>> marginals(table, mask).axes[0].get_title()
        'a: 1 imputed'
    """
    lost = (~mask).sum().sort_values(ascending=False, kind="stable")
    names = list(lost[lost > 0].index[:most])
    columns = max(1, min(4, len(names)))
    lines = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(2.4 * columns + 0.4, 2.0 * lines + 0.5), layout="constrained")
    figure.suptitle(_finding(table, mask, names), fontsize=11)
    figure.supylabel("share of the column's observed or imputed cells", fontsize=9)
    for i, name in enumerate(names):
        _marginal(figure.add_subplot(lines, columns, i + 1), table[name], mask[name], str(name))
    return figure


def _finding(table: pd.DataFrame, mask: pd.DataFrame, names: list[Any]) -> str:
    """Title: which column's imputed values lie farthest from its observed ones, in standard deviations of these."""
    shifts = {}
    for name in names:
        values, seen = table[name], mask[name]
        if is_numeric_dtype(values) and seen.sum() > 1 and values[seen].std() > 0:
            shifts[name] = float((values[~seen].mean() - values[seen].mean()) / values[seen].std())
    title = "Observed (blue) and imputed (orange) values"
    if not shifts:
        return title
    name = max(shifts, key=lambda n: abs(shifts[n]))
    return f"{title}:\nimputed means differ most in {name}, by {shifts[name]:+.1f} sd"


def _marginal(axes: Any, values: pd.Series, seen: pd.Series, name: str) -> None:
    parts = [(values[seen], OBSERVED), (values[~seen], IMPUTED)]
    if is_numeric_dtype(values):
        # Outliers would squeeze everything else into one bar.
        low, high = np.quantile(values, [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, 31)
        for part, colour in parts:
            weights = np.full(len(part), 1 / max(1, len(part)))
            axes.hist(np.clip(part, edges[0], edges[-1]), edges, weights=weights, color=colour, alpha=0.55)
    else:
        levels = sorted(values.unique().tolist(), key=str)[:12]
        for shift, (part, colour) in zip((-0.2, 0.2), parts, strict=True):
            share = part.value_counts(normalize=True).reindex(levels).fillna(0)
            axes.bar(np.arange(len(levels)) + shift, share, 0.4, color=colour, alpha=0.8)
        axes.set_xticks(range(len(levels)), [str(v) for v in levels])
    short = name if len(name) <= 16 else f"{name[:15]}…"
    axes.set_title(f"{short}: {int((~seen).sum())} imputed", fontsize=9)
    axes.tick_params(labelsize=8)
