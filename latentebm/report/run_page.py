"""``report.html`` of a run of ``latentebm debias``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latentebm.disk.manifest import as_written, load_config, load_metrics
from latentebm.files import write_text
from latentebm.report.page import Page, Picture, picture, render_page
from latentebm.report.panel_table import remarks
from latentebm.report.run_tables import Table, metric_tables
from latentebm.report.words import balance, finding, headline, reliability, shown, worries

__all__ = ["CAPTIONS", "render_report"]

CAPTIONS = {
    "shares": "Shares of classes among the draws, as the classifier reads them, beside the target.",
    "clusters": "The reference image nearest to each cluster's centre, with the cluster's share in the reference and "
    "among the draws.",
    "counts": "What the model learned from, and the small reference set it is tilted to.",
    "latents": "Codes of reference images, coloured by class; labels serve the picture only, never the fit.",
    "reference_latents": "Codes of the reference images.",
    "reference": "Images of the reference set.",
    "energy": "The fitted tilt: draws move to where the energy is low.",
    "overlay": "Where the reference's codes lie, and where prior and tilted draws fall.",
    "paths": "First steps of some Langevin chains, from prior draws (open circles) towards the tilt (filled).",
    "training": "Losses of the model and of the energy along their fits.",
}
BALANCE = {"good": "The balance is right.", "bad": "The balance is not right.", "note": "The balance is uncertain."}
WIDE = ("clusters", "counts", "overlay", "reference", "training")


def render_report(run: Path | str) -> Path:
    """Write ``report.html`` of a run folder from its ``metrics.json``, ``config.json`` and figures.

    Raises:
        FileNotFoundError: no run folder there.
        ValueError: a file of it is damaged.
    """
    run = Path(run)
    metrics, config = load_metrics(run), load_config(run)
    with as_written(run / "metrics.json"):
        return write_text(run / "report.html", render_page(_page(run, metrics, config)))


def _page(run: Path, metrics: dict[str, Any], config: dict[str, Any]) -> Page:
    settings = config.get("settings", config["debiaser"])
    return Page(
        title=f"latentebm: {settings.get('data', 'run')}, {settings['latent_dim']}-D, {settings['objective']}",
        headline=headline(metrics),
        lead=finding(metrics),
        verdicts=_verdicts(metrics),
        before=_draws(run, "prior_draws", "Before: images drawn from the model as it is."),
        after=_draws(run, "tilted_draws", "After: images drawn from the same model under the tilt."),
        pictures=_pictures(run, metrics),
        worries=[*worries(metrics), *remarks(metrics)],
        tables=[*metric_tables(metrics), _settings_table(settings)],
        command=config.get("command", ""),
        version=config["latentebm"],
    )


def _verdicts(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The balance, and apart from it whether the sampling can be trusted."""
    tone, sentence = balance(metrics)
    reliable = metrics["tilted"]["reliable"]
    sampling = ("good", "Sampling is reliable.") if reliable else ("bad", "Unreliable.")
    found = [(tone, BALANCE[tone], sentence), (*sampling, reliability(metrics))]
    if metrics.get("unjudged"):
        found.append(("note", "Class shares are left out:", metrics["unjudged"]))
    return found


def _draws(run: Path, name: str, sentence: str) -> Picture | None:
    return picture(run / "figures" / f"{name}.png", f"A grid of images. {sentence}", sentence)


def _pictures(run: Path, metrics: dict[str, Any]) -> list[Picture]:
    """The run's figures in the order of CAPTIONS, then one of the draws of each class."""
    folder, names = run / "figures", metrics["data"]["class_names"]
    shares = _shares_in_words(metrics)
    found = [
        picture(folder / f"{name}.png", shares if name == "shares" else sentence, sentence, wide=name in WIDE)
        for name, sentence in CAPTIONS.items()
    ]
    for k, name in enumerate(names):
        sentence = f"Draws that the classifier reads as class {name}."
        found.append(picture(folder / f"class_{k:02d}.png", sentence, sentence, group=str(name)))
    return [each for each in found if each is not None]


def _shares_in_words(metrics: dict[str, Any]) -> str:
    if not metrics["judged"]:
        return CAPTIONS["shares"]
    sides = (metrics["untilted"]["shares"], metrics["tilted"]["shares"])
    rows = zip(metrics["data"]["class_names"], metrics["target"], *sides, strict=True)
    parts = [f"class {n} {shown(b, '.1f', 100)} to {shown(a, '.1f', 100)} %" for n, _, b, a in rows]
    return f"Class shares before and after the tilt: {'; '.join(parts)}."


def _settings_table(settings: dict[str, Any]) -> Table:
    rows = [
        [name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for name, value in settings.items()
        if value is not None
    ]
    return Table(
        "Settings",
        "What the run was asked for; settings left to their rule are not listed.",
        ["setting", "value"],
        rows,
    )
