"""The report of a job on a table: its finding, figure and tables."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from latentebm.plots import plot_targets
from latentebm.report.page import Page, Picture, render_page
from latentebm.report.run_tables import Table

__all__ = ["STAGES", "table_page", "table_tables"]

STAGES = ("real", "untilted", "tilted")


def table_page(metrics: dict[str, Any]) -> str:
    """The HTML page of a table's ``metrics.json``."""
    reliable = metrics["tilt"]["reliable"]
    verdict = ("good", "Reliable.") if reliable else ("bad", "Unreliable.")
    page = Page(
        title="latentebm: a table",
        headline="A debiased table",
        lead=_finding(metrics),
        verdicts=[(*verdict, _reliability(metrics["tilt"]))],
        pictures=[_figure(metrics)] if metrics["targets"] else [],
        tables=table_tables(metrics),
    )
    return render_page(page)


def table_tables(metrics: dict[str, Any]) -> list[Table]:
    """The numbers of a table's ``metrics.json`` as tables: targets, utility, likeness and weights."""
    tables = []
    if metrics["targets"]:
        rows = [
            [t["name"], *(_interval(t.get(s)) for s in STAGES), "–" if t["wanted"] is None else f"{t['wanted']:.3f}"]
            for t in metrics["targets"]
        ]
        sentence = "In brackets: 95 % intervals. Held-out real rows, the model's rows as they are, and tilted rows."
        tables.append(Table("Targets", sentence, ["quantity", *STAGES, "wanted"], rows))
    if metrics["utility"]:
        names = [n for n in ("auc", "accuracy", "gap") if n in metrics["utility"]["tilted"]]
        rows = [[stage, *(f"{u[n]:.3f}" for n in names)] for stage, u in metrics["utility"].items()]
        sentence = f"Gradient boosting that predicts {metrics['label']}, trained on each table, tested on real rows."
        head = ["trained on", *("parity gap" if n == "gap" else n for n in names)]
        tables.append(Table("Utility", sentence, head, rows))
    return [*tables, *_likeness_tables(metrics), _weight_table(metrics)]


def _likeness_tables(metrics: dict[str, Any]) -> list[Table]:
    sides = [metrics[s] for s in STAGES[1:]]
    marginals = [[c, *(f"{s['marginals'][c]:.3f}" for s in sides)] for c in sides[0]["marginals"]]
    named = {
        "association": "mean difference of pairwise associations (Cramér's V)",
        "nearer": "share nearer to a learned row than to as many unseen ones (one half: nothing copied)",
        "copies": "rows equal to a learned row",
        "copies_unseen": "unseen real rows equal to a learned row",
        "median": "median distance to the nearest learned row",
        "median_unseen": "the same of unseen real rows",
    }
    rows = [[said, *(f"{s[key]:.3f}" for s in sides)] for key, said in named.items()]
    return [
        Table("Marginals", "Total variation to held-out real rows.", ["column", *STAGES[1:]], marginals),
        Table("Likeness and privacy", "Beside held-out real rows.", ["measure", *STAGES[1:]], rows),
    ]


def _weight_table(metrics: dict[str, Any]) -> Table:
    tilt = metrics["tilt"]
    rows = [
        ["effective sample size (share of the model's rows)", f"{100 * tilt['ess']:.1f} %"],
        ["Pareto k̂", _tail(tilt)],
        ["cost: KL from the untilted rows (nats)", f"{tilt['kl']:.4f}"],
        ["repeated rows", f"{100 * tilt['repeated']:.1f} %"],
        *[
            [f"{said} (nats per row)", f"{metrics[key]:.3f}"]
            for key, said in (("heldout_gain", "held-out gain"), ("heldout_nats", "held-out −log p"))
            if metrics[key] is not None
        ],
        *[[f"seconds: {stage}", f"{value:.1f}"] for stage, value in metrics["seconds"].items()],
    ]  # fmt: skip
    return Table("Weights and cost", "How far the tilt goes, and what it took.", ["quantity", "value"], rows)


def _interval(m: dict[str, Any] | None) -> str:
    return "–" if m is None else f"{m['value']:.3f} ({m['low']:.3f}–{m['high']:.3f})"


def _finding(metrics: dict[str, Any]) -> str:
    if not metrics["targets"]:
        gain = metrics["heldout_gain"]
        return f"The tilt adds {gain:.3f} nats to the mean log-likelihood of a held-out reference row."
    first = metrics["targets"][0]
    return f"{first['name']}: {first['untilted']['value']:.3f} before the tilt, {_interval(first['tilted'])} after it."


def _tail(tilt: dict[str, Any]) -> str:
    """Pareto-k̂ in print: weights of a few values have no tail to fit."""
    k = tilt["pareto_k"]
    return "– (no tail)" if k is None or not math.isfinite(k) else f"{k:.2f}"


def _reliability(tilt: dict[str, Any]) -> str:
    size = f"effective sample size {100 * tilt['ess']:.1f} % of the model's rows, Pareto k̂ {_tail(tilt)}"
    if tilt["reliable"]:
        return f"The weights are healthy: {size}."
    return f"A few rows carry much of the weight: {size}. Ask for a smaller change, or train on more of what is rare."


def _figure(metrics: dict[str, Any]) -> Picture:
    """Each target before and after, with its interval and what is wanted."""
    targets = metrics["targets"][:20]
    figure = plot_targets(targets)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    sentence = "Each target before and after the tilt, with 95 % intervals."
    alt = "; ".join(f"{t['name']}: {t['untilted']['value']:.3f}, then {t['tilted']['value']:.3f}" for t in targets)
    return Picture(alt, sentence, data, wide=True)
