"""A run's numbers as tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from latentebm.report.panel_table import HEAD, panel_rows, panel_sentence
from latentebm.report.words import as_read, shown

__all__ = ["Table", "metric_tables", "table_makers"]


@dataclass(frozen=True)
class Table:
    """A table with the sentence that says what it shows."""

    title: str
    sentence: str
    head: list[str]
    rows: list[list[str]]


def metric_tables(metrics: dict[str, Any], *, intervals: bool = True) -> list[Table]:
    """The numbers of ``metrics.json`` as tables: class shares, quality, weights, seconds.

    With `intervals` each class share has its 95 % interval beside it, which makes for a wide table.

    Example:
        >>> tables = metric_tables({"judged": False, "seconds": {"total": 1.0}, "generator": {"train_loss": 3.0},
        ...     "tilted": {"heldout_gain": 0.5, "ess": 0.4, "pareto_k": 0.1, "log_z": 0.0, "log_z_se": 0.1,
        ...                "duplicates": 0.0, "sampler": "snis"}})
        >>> tables[0].rows[:2]
        [['held-out gain (nats per image)', '0.500'], ['log Z ± standard error (nats)', '0.0000 ± 0.1000']]
    """
    return [make() for _, make in table_makers(metrics, intervals=intervals)]


def table_makers(metrics: dict[str, Any], *, intervals: bool = True) -> list[tuple[str, Callable[[], Table]]]:
    """What makes each table, by its title: numbers that earlier versions did not write are missed one by one.

    Example:
        >>> [title for title, _ in table_makers({"judged": False})]
        ['Tilt and draws', 'Seconds']
    """
    makers: list[tuple[str, Callable[[], Table]]] = []
    if metrics["judged"]:
        makers = [
            ("Class shares", lambda: _class_shares(metrics, intervals)),
            ("Balance and quality", lambda: _balance_and_quality(metrics)),
            ("Quality by class", lambda: _by_class(metrics["data"]["class_names"], metrics["tilted"]["by_class"])),
        ]
        if panel := metrics.get("panel"):
            sentence = panel_sentence(panel)
            makers.insert(
                1, ("Several judges", lambda: Table("Several judges", sentence, list(HEAD), panel_rows(panel)))
            )
    makers.append(("Tilt and draws", lambda: _weights(metrics)))
    return [*makers, ("Seconds", lambda: _seconds(metrics))]


def _weights(metrics: dict[str, Any]) -> Table:
    sentence = "How far the tilt goes from the prior, and how well the draws represent it."
    return Table("Tilt and draws", sentence, ["quantity", "value"], _weight_rows(metrics))


def _seconds(metrics: dict[str, Any]) -> Table:
    rows = [[stage, shown(value, ".1f")] for stage, value in metrics["seconds"].items()]
    return Table("Seconds", "Wall-clock time of each stage.", ["stage", "seconds"], rows)


def _class_shares(metrics: dict[str, Any], intervals: bool) -> Table:
    (before, after), data = (as_read(metrics)[side] for side in ("untilted", "tilted")), metrics["data"]
    columns = (before, "shares"), (after, "shares"), (metrics["tilted"], "shares_corrected")
    rows = [
        [name, f"{b:,}", "–" if r is None else f"{r:,}", f"{shown(wanted, '.1f', 100)} %", *shares]
        for name, b, r, wanted, *shares in zip(
            data["class_names"],
            data["biased"],
            data["reference"] or [None] * len(data["biased"]),
            metrics["target"],
            *(_shares(side, key, intervals) for side, key in columns),
            strict=True,
        )
    ]
    rest = [None if None in side[key] else max(0.0, 1 - sum(side[key])) for side, key in columns]
    rows.append(["none of these", "", "", "", *(f"{shown(share, '.1f', 100)} %" for share in rest)])
    accuracy = metrics["classifier"]["accuracy"]
    return Table(
        "Class shares",
        f"{metrics['samples']:,} draws each, the mean of what the judges read. The last column is one classifier's "
        f"reading, right on {shown(accuracy, '.2f', 100)} % of the test images, corrected for the confusions it makes "
        "there. In brackets: 95 % intervals.",
        ["class", "biased set", "reference set", "target", "untilted", "tilted", "one judge, corrected"],
        rows,
    )


def _balance_and_quality(metrics: dict[str, Any]) -> Table:
    before, after = metrics["untilted"], metrics["tilted"]
    return Table(
        "Balance and quality",
        "As one classifier reads the draws. Lower is better for the distances (TV, KL and L2 to the target; KL counts "
        "half a draw more in each class) and for classes without a draw; the others are best near one. In brackets: "
        "95 % intervals.",
        ["measure", "untilted", "tilted"],
        [[title, *(_show(side, key) for side in (before, after))] for title, key in _QUALITY],
    )


_BY_CLASS = ("frechet", "precision", "recall", "density", "coverage")
_QUALITY = (
    ("total variation", "tv"),
    ("total variation of corrected shares", "tv_corrected"),
    ("KL divergence (nats)", "kl"),
    ("L2 distance", "l2"),
    ("classes without a draw", "absent"),
    ("mean confidence", "confidence"),
    ("Fréchet distance (classifier features)", "frechet"),
    *((name, name) for name in _BY_CLASS[1:]),
)


def _show(side: dict[str, Any], key: str) -> str:
    value = str(side[key]) if isinstance(side[key], int) else shown(side[key])
    interval = side.get(f"{key}_interval")  # of the measures of balance only; runs of earlier versions have fewer
    return value if interval is None else f"{value} ({shown(interval[0])}–{shown(interval[1])})"


def _shares(side: dict[str, Any], key: str, intervals: bool) -> list[str]:
    ends = side.get(f"{key}_interval") if intervals else None
    if ends is None:
        return [f"{shown(share, '.1f', 100)} %" for share in side[key]]
    parts = [[shown(x, ".1f", 100) for x in (p, *of)] for p, of in zip(side[key], ends, strict=True)]
    return [f"{p} % ({low}–{high})" for p, low, high in parts]


def _by_class(names: list[str], rows: list[dict[str, float] | None]) -> Table:
    return Table(
        "Quality by class",
        "Tilted draws against real images within each class, as the classifier reads both; a dash stands for a class "
        "with too few images.",
        ["class", "Fréchet distance", *_BY_CLASS[1:]],
        [
            [name, *("–" if row is None else shown(row[key]) for key in _BY_CLASS)]
            for name, row in zip(names, rows, strict=True)
        ],
    )


def _weight_rows(metrics: dict[str, Any]) -> list[list[str]]:
    t, generator = metrics["tilted"], metrics["generator"]
    rows = [
        ["held-out gain (nats per image)", shown(t["heldout_gain"])],
        ["log Z ± standard error (nats)", f"{shown(t['log_z'], '.4f')} ± {shown(t['log_z_se'], '.4f')}"],
        ["effective sample size (share of the pool)", f"{shown(t['ess'], '.1f', 100)} %"],
        ["Pareto k̂", shown(t["pareto_k"], ".2f")],
        ["sampler", str(t["sampler"])],
    ]
    if t.get("energy") is not None:  # which runs of earlier versions lack
        rows.insert(0, ["tilt", t["energy"]])
    if t.get("copied") is not None:
        title = "nearer to a reference image than to any of as many unseen (fair: 50 %)"
        rows.append([title, f"{shown(t['copied'], '.0f', 100)} %"])
    if t.get("duplicates") is not None:
        rows.append(["repeated draws", f"{shown(t['duplicates'], '.1f', 100)} %"])
    if t.get("acceptance") is not None:
        rows.append(["acceptance", f"{shown(t['acceptance'], '.1f', 100)} %"])
    stein = t.get("stein", {})
    if stein:
        found = stein.get("untested") or f"p = {shown(stein['p_value'])} ({stein['draws']} draws; small: they do not)"
        rows.append(["do draws follow the tilt (Stein test)", found])
    if t.get("rhat") is not None:
        rows.append(["largest R̂ (chains agree near 1)", shown(t["rhat"])])
    if generator.get("heldout_loss") is not None:
        rows.append(["VAE −ELBO on test images, biased shares (nats)", shown(generator["heldout_loss"], ".1f")])
        rows.append(["VAE −ELBO on test images, target shares (nats)", shown(generator["heldout_loss_target"], ".1f")])
    return rows
