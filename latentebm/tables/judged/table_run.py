"""The whole job on a table: fit on a part of its rows, tilt, judge beside the other part, and write a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latentebm.checks import check_int, check_number, fail
from latentebm.disk.manifest import add_files
from latentebm.files import write_atomic, write_json, write_text
from latentebm.report.table_page import table_page
from latentebm.tables.judged.table_measures import association_distance, marginal_distances, measured, nearness
from latentebm.tables.judged.utility import train_on_made
from latentebm.tables.parity import Parity
from latentebm.tables.table_code import FEWEST_ROWS, check_table
from latentebm.tables.table_debiaser import TableDebiaser
from latentebm.tables.targets import as_targets

__all__ = ["TableJob"]

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
        check_table("table", self.table)  # as it stands: identifiers show by their order
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

    def write(self, folder: Path, metrics: dict[str, Any], *, kind: str = ".csv", command: str = "") -> None:
        """Write the model, ``samples`` (.csv or .parquet), ``metrics.json`` and ``report.html`` into a folder.

        The report shows the `command` that made it, if there was one.
        """
        self.model.save(folder)
        samples = folder / f"samples{kind}"
        if kind == ".parquet":
            write_atomic(samples, lambda p: self.made.to_parquet(p, index=False))
        else:
            write_atomic(samples, lambda p: self.made.to_csv(p, index=False, sep="\t" if kind == ".tsv" else ","))
        write_json(folder / "metrics.json", metrics)
        write_text(folder / "report.html", table_page(metrics, command))
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


def _utility(
    stages: dict[str, pd.DataFrame], test: pd.DataFrame, label: Any, by: Any, seed: int
) -> dict[str, dict[str, float]]:
    return {name: train_on_made(rows, test, label, by=by, seed=seed) for name, rows in stages.items()}


def _likeness(train: pd.DataFrame, test: pd.DataFrame, made: pd.DataFrame, seed: int) -> dict[str, Any]:
    marginals = {str(c): d for c, d in marginal_distances(test, made).items()}
    association = association_distance(test, made)
    return {"marginals": marginals, "association": association, **nearness(train, test, made, seed=seed)}
