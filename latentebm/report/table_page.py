"""``report.html`` of a run of ``latentebm table``."""

from __future__ import annotations

import math
from typing import Any

from latentebm.plots import plot_targets
from latentebm.report.page import Page, Picture, drawn, render_page
from latentebm.report.run_tables import Table
from latentebm.report.words import COPIES, LOW

__all__ = ["table_page", "table_tables"]

STAGES = ("real", "untilted", "tilted")


def table_page(metrics: dict[str, Any], command: str = "") -> str:
    """The report of a table's ``metrics.json``, one page of HTML.

    Example:
        >>> side = {"value": 0.2, "low": 0.1, "high": 0.3}
        >>> gap = {"name": "pay by sex", "wanted": 0.0, **dict.fromkeys(STAGES, side)}
        >>> likeness = {"marginals": {"pay": 0.1}, "association": 0.1, "nearer": 0.5, "copies": 0.0}
        >>> likeness |= {"copies_unseen": 0.0, "median": 1.0, "median_unseen": 1.0}
        >>> tilt = {"reliable": True, "ess": 0.5, "pareto_k": 0.1, "kl": 0.2, "repeated": 0.0}
        >>> metrics = {"targets": [gap], "tilt": tilt, "utility": {}, "heldout_gain": 0.1, "heldout_nats": 2.0,
        ...     "untilted": likeness, "tilted": likeness, "seconds": {"fit": 1.0}}
        >>> "<h1>pay by sex: 0.200 → 0.200, wanted 0</h1>" in table_page(metrics)
        True
    """
    reliable = metrics["tilt"]["reliable"]
    health = ("good", "Sampling is reliable.") if reliable else ("bad", "Unreliable.")
    return render_page(
        Page(
            title="latentebm: a table",
            headline=_headline(metrics),
            lead=_lead(metrics),
            verdicts=[*_aim(metrics), (*health, _reliability(metrics["tilt"]))],
            finding=_figure(metrics) if metrics["targets"] else None,
            worries=_worries(metrics),
            tables=table_tables(metrics),
            command=command,
        )
    )


def _headline(metrics: dict[str, Any]) -> str:
    if not metrics["targets"]:
        return f"A held-out reference row gains {metrics['heldout_gain']:.3f} nats"
    first = max(metrics["targets"], key=lambda t: abs(t["tilted"]["value"] - t["untilted"]["value"]))
    moved = f"{first['name']}: {first['untilted']['value']:.3f} → {first['tilted']['value']:.3f}"
    return moved if first["wanted"] is None else f"{moved}, wanted {first['wanted']:.3g}"


def _lead(metrics: dict[str, Any]) -> str:
    if not metrics["targets"]:
        return "The tilt raises the mean log-likelihood of held-out rows of the reference table by that much."
    return "In drawn rows, before and after the tilt. The generator's weights are as they were."


def _aim(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Whether every target that wants a value has it within its interval."""
    wanted = [t for t in metrics["targets"] if t["wanted"] is not None]
    off = [t for t in wanted if not t["tilted"]["low"] - 1e-9 <= t["wanted"] <= t["tilted"]["high"] + 1e-9]
    if not wanted:
        return []
    if not off:
        return [("good", "The targets are met.", f"What is wanted lies in the 95 % interval of all {len(wanted)}.")]
    named = "; ".join(f"{t['name']} {_interval(t['tilted'])}, wanted {t['wanted']:.3g}" for t in off[:5])
    return [("bad", "Not every target is met.", f"{len(off)} of {len(wanted)} lie elsewhere: {named}.")]


def _worries(metrics: dict[str, Any]) -> list[str]:
    found, tilted = [], metrics["tilted"]
    if tilted["nearer"] > COPIES:
        share = f"{100 * tilted['nearer']:.0f} %"
        found.append(f"{share} of the rows lie nearer to a learned row than to as many unseen ones (fair: 50 %).")
    if tilted["copies"] > tilted["copies_unseen"] + LOW:
        found.append(
            f"{100 * tilted['copies']:.0f} % of the rows equal a learned row; do not publish them as synthetic."
        )
    if metrics["tilt"]["repeated"] > LOW:
        found.append(f"{100 * metrics['tilt']['repeated']:.0f} % of the rows repeat another one: draw fewer of them.")
    worse = [c for c, d in tilted["marginals"].items() if d > metrics["untilted"]["marginals"][c] + LOW]
    if worse:
        found.append(f"Columns that the tilt moved away from real rows by more than {LOW}: {', '.join(worse[:10])}.")
    utility = metrics["utility"]
    if utility and utility["real"]["auc"] - utility["tilted"]["auc"] > LOW:
        lost = f"{utility['real']['auc']:.3f} to {utility['tilted']['auc']:.3f}"
        found.append(f"A classifier trained on drawn rows is worse on real ones: AUC {lost}.")
    return found


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
    targets = metrics["targets"][:20]
    alt = "; ".join(f"{t['name']}: {t['untilted']['value']:.3f}, then {t['tilted']['value']:.3f}" for t in targets)
    return drawn(plot_targets(targets), alt, "Each target before and after the tilt, with 95 % intervals.", wide=True)
