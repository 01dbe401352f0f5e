"""A run's numbers in words and tables, and the page that holds them."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from latentebm.disk.manifest import as_written, load_config, load_metrics
from latentebm.files import write_text
from latentebm.sampling.importance.weights import LEAST_ESS

__all__ = ["CAPTIONS", "Table", "course", "finding", "metric_tables", "reliability", "render_report", "shown"]

CAPTIONS = {
    "counts": "What the model learned from, and the small reference set it is tilted to.",
    "latents": "Codes of reference images, coloured by class; labels serve the picture only, never the fit.",
    "reference_latents": "Codes of the reference images.",
    "prior_draws": "Images from the model before the tilt.",
    "energy": "The fitted tilt: draws move to where the energy is low.",
    "tilted_draws": "Images from the same model after the tilt, its weights unchanged.",
    "overlay": "Where the reference's codes lie, and where prior and tilted draws fall.",
    "paths": "First steps of some Langevin chains, from prior draws (open circles) towards the tilt (filled).",
    "shares": "Shares of classes among the draws, as the classifier reads them, beside the target.",
}
WIDE = ("counts", "prior_draws", "tilted_draws", "overlay")


@dataclass(frozen=True)
class Table:
    """A table with the sentence that says what it shows."""

    title: str
    sentence: str
    head: list[str]
    rows: list[list[str]]


def shown(value: float | None, form: str = ".3f", factor: float = 1.0) -> str:
    """A number as it is printed, a dash where it is missing.

    Example:
        >>> shown(0.25, ".1f", 100), shown(None), shown(float("nan"))
        ('25.0', '–', '–')
    """
    return "–" if value is None or math.isnan(value) else format(factor * value, form)


def course(before: float | None, after: float | None) -> str:
    """How a number changed, at the three decimals it is printed with.

    Example:
        >>> course(0.2, 0.1), course(0.1, 0.2), course(0.1981, 0.1979)
        ('falls', 'rises', 'stays')
    """
    if before is None or after is None:
        return "goes"
    step = round(after, 3) - round(before, 3)
    return "stays" if step == 0 else "falls" if step < 0 else "rises"


def finding(metrics: dict[str, Any]) -> str:
    """The run in one sentence.

    Example:
        >>> finding({"judged": False, "tilted": {"heldout_gain": 0.5}})
        'The tilt adds 0.500 nats to the mean log-likelihood bound of a held-out reference image.'
    """
    if not metrics["judged"]:
        gain = metrics["tilted"]["heldout_gain"]
        return f"The tilt adds {shown(gain)} nats to the mean log-likelihood bound of a held-out reference image."
    before, after = metrics["untilted"]["tv"], metrics["tilted"]["tv"]
    low, high = metrics["tilted"]["tv_interval"] or (None, None)
    return (
        f"The distance between the model's class shares and the target {course(before, after)} from "
        f"{shown(before)} to {shown(after)} (total variation, 95 % interval {shown(low)} to {shown(high)})."
    )


def reliability(metrics: dict[str, Any]) -> str:
    """Whether the importance weights can be trusted, and why.

    Example:
        >>> reliability({"tilted": {"reliable": False, "ess": 0.001, "pareto_k": 0.9, "pareto_k_threshold": 0.7}})
        'The importance weights collapsed: effective sample size 0.1 % (needs 1 %), Pareto k̂ 0.90 (needs below 0...'
    """
    t = metrics["tilted"]
    if t.get("unmade"):
        return (
            f"The model never produced {', '.join(t['unmade'])}, so reweighting cannot add it. "
            "Leave that class out of the target, or train the model with more of it."
        )
    if not t.get("mixed", True):
        return (
            f"The long chains do not agree: R̂ {shown(t['rhat'], '.2f')}. Each explored only a part of the "
            "distribution; draw by snis or mala, or draw more."
        )
    if t.get("why"):
        return f"{t['why'][0].upper()}{t['why'][1:]}."
    size, tail = f"effective sample size {shown(t['ess'], '.3g', 100)} %", shown(t["pareto_k"], ".2f")
    if t["reliable"]:
        return f"The importance weights are healthy: {size}, Pareto k̂ {tail}."
    fault, few = ("collapsed", "carry") if (t["ess"] or 0) < LEAST_ESS else ("have a heavy tail", "may carry")
    return (
        f"The importance weights {fault}: {size} (needs {100 * LEAST_ESS:g} %), Pareto k̂ {tail} "
        f"(needs below {shown(t['pareto_k_threshold'], '.2f')}). A few draws {few} almost all the weight; do not "
        "use these numbers. A calibrated objective, more reference images or more folds help."
    )


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
    tables = _judged_tables(metrics, intervals) if metrics["judged"] else []
    seconds = [[stage, shown(value, ".1f")] for stage, value in metrics["seconds"].items()]
    sentence = "How far the tilt goes from the prior, and how well the draws represent it."
    return [
        *tables,
        Table("Tilt and draws", sentence, ["quantity", "value"], _weight_rows(metrics)),
        Table("Seconds", "Wall-clock time of each stage.", ["stage", "seconds"], seconds),
    ]


def _judged_tables(metrics: dict[str, Any], intervals: bool) -> list[Table]:
    before, after, data = metrics["untilted"], metrics["tilted"], metrics["data"]
    columns = (before, "shares"), (after, "shares"), (after, "shares_corrected")
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
    corrected = after["shares_corrected"]
    rest = (before["other"], after["other"], None if None in corrected else 1 - sum(corrected))
    rows.append(["none of these", "", "", "", *(f"{shown(share, '.1f', 100)} %" for share in rest)])
    accuracy = metrics["classifier"]["accuracy"]
    shares = Table(
        "Class shares",
        f"{metrics['samples']:,} draws each, read by a classifier that is right on {shown(accuracy, '.2f', 100)} % of "
        "the test images; the last column corrects for the confusions it makes there. In brackets: 95 % intervals.",
        ["class", "biased set", "reference set", "target", "untilted", "tilted", "tilted, corrected"],
        rows,
    )
    quality = Table(
        "Balance and quality",
        "Lower is better for the distances (TV, KL and L2 to the target; KL counts half a draw more in each class) and "
        "for classes without a draw; the others are best near one. In brackets: 95 % intervals.",
        ["measure", "untilted", "tilted"],
        [[title, *(_show(side, key) for side in (before, after))] for title, key in _QUALITY],
    )
    return [shares, quality, _by_class(data["class_names"], after["by_class"])]


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


def render_report(run: Path | str) -> Path:
    """Write ``report.html`` of a run folder from its ``metrics.json``, ``config.json`` and figures."""
    run = Path(run)
    metrics, config = load_metrics(run), load_config(run)
    with as_written(run / "metrics.json"):
        return write_text(run / "report.html", _page(run, metrics, config))


def _page(run: Path, metrics: dict[str, Any], config: dict[str, Any]) -> str:
    loader = PackageLoader("latentebm", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    settings = config.get("settings", config["debiaser"])
    return environment.get_template("page.html").render(
        title=f"latentebm: {settings.get('data', 'run')}, {settings['latent_dim']}-D, {settings['objective']}",
        finding=finding(metrics),
        reliable=metrics["tilted"]["reliable"],
        reliability=reliability(metrics),
        unjudged=metrics.get("unjudged", ""),
        tables=metric_tables(metrics),
        figures=_figures(run),
        version=config["latentebm"],
        settings=json.dumps(settings, indent=2, ensure_ascii=False),
    )


def _figures(run: Path) -> list[dict[str, Any]]:
    found = []
    for name, sentence in CAPTIONS.items():
        path = run / "figures" / f"{name}.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            found.append({"title": name.replace("_", " "), "data": data, "sentence": sentence, "wide": name in WIDE})
    return found
