"""The whole job on a table: fit on a part of its rows, tilt, judge beside the other part, and write a folder."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latentebm.checks import check_int, check_number, fail
from latentebm.disk.manifest import add_files
from latentebm.files import write_atomic, write_json, write_text
from latentebm.plots import plot_targets
from latentebm.report.page import Page, Picture, render_page
from latentebm.report.run_tables import Table
from latentebm.tables.table_code import FEWEST_ROWS
from latentebm.tables.table_debiaser import TableDebiaser
from latentebm.tables.table_measures import (
    association_distance,
    marginal_distances,
    measured,
    nearness,
)
from latentebm.tables.targets import Parity, as_targets
from latentebm.tables.utility import train_on_made

__all__ = ["TableJob", "table_tables"]

STAGES = ("real", "untilted", "tilted")


@dataclass
class TableJob:
    """A table, what is asked of it, and how much of it is held out to judge by.

    Arguments:
        table: the biased table.
        model: the estimator, not fitted yet.
        reference: a reference table, or None.
        label: column that a classifier predicts from the others; None takes the first parity target's outcome, and
            leaves the judgement by a classifier out if there is none.
        rows: rows of the written table, and of those that are judged.
        test_share: share of the table that is held out.

    Example:
        >>> from latentebm.tables.census import synthetic_census
        >>> model = TableDebiaser(Parity("income", by="sex"), steps=20, width=8, pool=5000)
        >>> metrics = TableJob(synthetic_census(600, seed=0), model, rows=500).judge()
        >>> metrics["targets"][0]["name"], metrics["tilt"]["ess"] > 0.5
        ('gap of income by sex', True)
    """

    table: pd.DataFrame
    model: TableDebiaser
    reference: pd.DataFrame | None = None
    label: Any = None
    rows: int = 10_000
    test_share: float = 0.25
    made: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        check_int("rows", self.rows)
        check_number("test_share", self.test_share, low=0, high=0.9, open_low=True)
        if self.label is not None and self.label not in self.table.columns:
            raise fail("label", "a column of the table", repr(self.label), f"pass one of {list(self.table)[:10]}")

    def judge(self) -> dict[str, Any]:
        """Fit, draw and measure."""
        start = time.perf_counter()
        train, test = self._split()
        self.model.fit(train, self.reference)
        fitted = time.perf_counter()
        before, self.made = self.model.sample_prior(self.rows), self.model.sample(self.rows)
        drawn = time.perf_counter()
        stages = dict(zip(STAGES, (test, before, self.made), strict=True))
        label, by = self._label()
        report = {
            "rows": {"train": len(train), "test": len(test), "made": self.rows},
            "targets": self._targets(stages),
            "tilt": self.model.weigh() | {"repeated": self.made.attrs["repeated"]},
            "heldout_gain": self.model.heldout_gain_,
            "heldout_nats": self.model.heldout_nats_,
            "label": None if label is None else str(label),
            "utility": {} if label is None else _utility(stages | {"real": train}, test, label, by, self.model.seed),
        }
        for name in ("untilted", "tilted"):
            report[name] = _likeness(train, test, stages[name], self.model.seed)
        done = time.perf_counter()
        return report | {"seconds": {"fit": fitted - start, "draw": drawn - fitted, "judge": done - drawn}}

    def write(self, folder: Path, metrics: dict[str, Any], *, kind: str = ".csv") -> None:
        """Write the model, ``samples`` (.csv or .parquet), ``metrics.json`` and ``report.html`` into a folder."""
        self.model.save(folder)
        samples = folder / f"samples{kind}"
        if kind == ".parquet":
            write_atomic(samples, lambda p: self.made.to_parquet(p, index=False))
        else:
            write_atomic(samples, lambda p: self.made.to_csv(p, index=False, sep="\t" if kind == ".tsv" else ","))
        write_json(folder / "metrics.json", metrics)
        write_text(folder / "report.html", self._page(metrics))
        add_files(folder, [samples.name, "metrics.json"])

    def _split(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        order = np.random.default_rng(self.model.seed).permutation(len(self.table))
        n_test = round(self.test_share * len(self.table))
        if len(self.table) - n_test < FEWEST_ROWS or not n_test:
            got = f"{len(self.table)} rows"
            raise fail("table", f"at least {FEWEST_ROWS} rows besides those held out", got, "pass more rows")
        parts = (order[n_test:], order[:n_test])
        train, test = (self.table.iloc[rows].reset_index(drop=True) for rows in parts)
        return train, test

    def _label(self) -> tuple[Any, Any]:
        """Label of the classifier, and the groups whose shares of it are compared."""
        parities = [t for t in as_targets(self.model.target) if isinstance(t, Parity)]
        if self.label is None and not parities:
            return None, None
        label = parities[0].outcome if self.label is None else self.label
        return label, next((t.by for t in parities if t.outcome == label), None)

    def _targets(self, stages: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for target in as_targets(self.model.target):
            sides = {name: measured(rows, target, self.reference) for name, rows in stages.items()}
            for i, last in enumerate(sides["tilted"]):
                each = {name: side[i]._asdict() for name, side in sides.items() if i < len(side)}
                found.append({"name": last.name, "wanted": last.wanted, **each})
        return found

    def _page(self, metrics: dict[str, Any]) -> str:
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


def _utility(
    stages: dict[str, pd.DataFrame], test: pd.DataFrame, label: Any, by: Any, seed: int
) -> dict[str, dict[str, float]]:
    return {name: train_on_made(rows, test, label, by=by, seed=seed) for name, rows in stages.items()}


def _likeness(train: pd.DataFrame, test: pd.DataFrame, made: pd.DataFrame, seed: int) -> dict[str, Any]:
    marginals = {str(c): d for c, d in marginal_distances(test, made).items()}
    association = association_distance(test, made)
    return {"marginals": marginals, "association": association, **nearness(train, test, made, seed=seed)}


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
    return "– (no tail)" if k is None else f"{k:.2f}"


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
