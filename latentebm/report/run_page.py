"""``report.html`` of a run of ``latentebm debias``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from latentebm.disk.manifest import as_written, load_config, load_metrics
from latentebm.files import write_text
from latentebm.report.page import Page, Picture, picture, render_page
from latentebm.report.panel_table import remarks
from latentebm.report.run_tables import Table, table_makers
from latentebm.report.words import as_read, balance, finding, headline, quality, reliability, shown, worries

__all__ = ["CAPTIONS", "render_report"]

CAPTIONS = {
    "shares": "Shares of classes among the draws, as the judges read them on average, beside the target.",
    "clusters": "The reference image nearest to each cluster's centre, with the cluster's share in the reference and "
    "among the draws.",
    "reference": "Images of the reference set.",
    "counts": "What the model learned from, and the small reference set it is tilted to.",
    "latents": "Codes of reference images, coloured by class; labels serve the picture only, never the fit.",
    "reference_latents": "Codes of the reference images.",
    "energy": "The fitted tilt: draws move to where the energy is low.",
    "overlay": "Where the reference's codes lie, and where prior and tilted draws fall.",
    "paths": "First steps of some Langevin chains, from prior draws (open circles) towards the tilt (filled).",
    "training": "Losses of the model and of the energy along their fits.",
}
BALANCE = {"good": "The balance is right.", "bad": "The balance is not right.", "note": "The balance is uncertain."}
T = TypeVar("T")
Verdict: TypeAlias = tuple[str, str, str]
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


class _Parts:
    """Parts of a page; those that need what the run's files lack are left out and named."""

    def __init__(self) -> None:
        self.lacking: list[str] = []

    def of(self, name: str, make: Callable[[], T], otherwise: T) -> T:
        try:
            return make()
        except KeyError as missing:
            self.lacking.append(f"{name} (no {missing})")
            return otherwise

    def said(self, run: Path) -> list[str]:
        """What is left out, in words."""
        absent = [name for name in ("prior_draws", "tilted_draws") if not (run / "figures" / f"{name}.png").is_file()]
        said = [f"The run folder has no figures/{name}.png; the picture is left out." for name in absent]
        if self.lacking:
            said.append(f"This run's files lack numbers that are shown here: {'; '.join(self.lacking)} left out.")
        return said


def _page(run: Path, metrics: dict[str, Any], config: dict[str, Any]) -> Page:
    settings = config.get("settings", config.get("debiaser", {}))
    metrics = {"judged": metrics.get("untilted") is not None, **metrics}  # earlier versions judged every run
    parts, none, silence = _Parts(), list[Verdict](), list[str]()
    tables = [parts.of(title, make, None) for title, make in table_makers(metrics)]
    first = "shares" if metrics.get("judged") else "clusters"
    words = parts.of("shares in words", lambda: _shares_in_words(metrics), CAPTIONS[first])
    page = Page(
        title=_title(settings),
        headline=parts.of("headline", lambda: headline(metrics), "A run of latentebm debias"),
        lead=parts.of("finding", lambda: finding(metrics), ""),
        verdicts=[
            *parts.of("balance", lambda: _balance(metrics), none),
            *parts.of("sampling", lambda: _health(metrics), none),
            *parts.of("quality", lambda: _quality(metrics), none),
        ],
        finding=picture(run / "figures" / f"{first}.png", words, CAPTIONS[first]),
        before=_draws(run, "prior_draws", "Before: images drawn from the model as it is."),
        after=_draws(run, "tilted_draws", "After: images drawn from the same model under the tilt."),
        pictures=parts.of("grids of classes", lambda: _pictures(run, metrics, first), []),
        worries=[
            *parts.of("worries", lambda: worries(metrics), silence),
            *parts.of("remarks", lambda: remarks(metrics), silence),
        ],
        tables=[*(table for table in tables if table is not None), _settings_table(settings)],
        command=config.get("command", ""),
        version=config["latentebm"],
    )
    return replace(page, worries=[*page.worries, *parts.said(run)])


def _title(settings: dict[str, Any]) -> str:
    known = [str(settings[name]) for name in ("data", "objective") if isinstance(settings.get(name), str)]
    return f"latentebm: {', '.join(known) or 'run'}"


def _balance(metrics: dict[str, Any]) -> list[Verdict]:
    tone, sentence = balance(metrics)
    found = [(tone, BALANCE[tone], sentence)]
    if metrics.get("unjudged"):
        found.append(("note", "Class shares are left out:", metrics["unjudged"]))
    return found


def _health(metrics: dict[str, Any]) -> list[Verdict]:
    """Whether the sampling can be trusted, apart from whether the balance is right."""
    sampling = ("good", "Sampling is reliable.") if metrics["tilted"]["reliable"] else ("bad", "Unreliable.")
    return [(*sampling, reliability(metrics))]


def _quality(metrics: dict[str, Any]) -> list[Verdict]:
    sentence = quality(metrics)
    return [("note", "Quality:", sentence)] if sentence else []


def _draws(run: Path, name: str, sentence: str) -> Picture | None:
    return picture(run / "figures" / f"{name}.png", f"A grid of images. {sentence}", sentence)


def _pictures(run: Path, metrics: dict[str, Any], first: str) -> list[Picture]:
    """The run's other figures in the order of CAPTIONS, then one of the draws of each class."""
    folder, names = run / "figures", metrics["data"]["class_names"]
    rest = {name: sentence for name, sentence in CAPTIONS.items() if name != first}
    found = [picture(folder / f"{name}.png", sentence, sentence, wide=name in WIDE) for name, sentence in rest.items()]
    for k, name in enumerate(names or ()):
        sentence = f"Draws that the classifier reads as class {name}."
        found.append(picture(folder / f"class_{k:02d}.png", sentence, sentence, group=str(name)))
    return [each for each in found if each is not None]


def _shares_in_words(metrics: dict[str, Any]) -> str:
    if not metrics["judged"]:
        return CAPTIONS["shares"]
    sides = (as_read(metrics)[side]["shares"] for side in ("untilted", "tilted"))
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
