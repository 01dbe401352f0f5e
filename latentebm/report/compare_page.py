"""Runs side by side on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentebm.checks import fail
from latentebm.disk.manifest import as_written, load_config, load_metrics
from latentebm.files import write_text
from latentebm.report.page import Page, Picture, picture, render_page
from latentebm.report.run_tables import Table
from latentebm.report.words import as_read, balance, shown

__all__ = ["comparison_table", "write_comparison"]

MEASURES = (
    ("total variation, untilted", "untilted", "tv"),
    ("total variation, tilted", "tilted", "tv"),
    ("Fréchet distance, tilted", "tilted", "frechet"),
    ("recall, tilted", "tilted", "recall"),
    ("held-out gain (nats)", "tilted", "heldout_gain"),
    ("effective sample size", "tilted", "ess"),
    ("Pareto k̂", "tilted", "pareto_k"),
    ("nearer to a reference image than to unseen ones", "tilted", "copied"),
    ("seconds", "seconds", "total"),
)


def write_comparison(runs: Sequence[Path | str], out: Path | str) -> Path:
    """Write a page of several runs: their numbers, settings that differ, class shares and draws.

    Raises:
        FileNotFoundError: one is no run folder.
        ValueError: fewer than two runs, a damaged one or one of another command, or `out` does not end in .html.
    """
    if len(runs) < 2:
        raise fail("runs", "two run folders or more", f"{len(runs)}", "pass another")
    out = Path(out)
    if out.suffix != ".html":
        raise fail("out", "a name ending in .html", str(out), "pass for example out=compare.html")
    found = {str(run): (load_metrics(run), load_config(run)) for run in runs}
    for run, (metrics, _) in found.items():
        if "judged" not in metrics:
            raise fail("runs", "runs of latentebm debias", f"another kind in {run}", "leave it out")
    with as_written(Path(" or ".join(f"{run}/metrics.json" for run in found))):
        return write_text(out, render_page(_page(found)))


def comparison_table(metrics: dict[str, dict[str, Any]]) -> Table:
    """The measures of runs by name, a row for each measure that any of them has.

    Example:
        >>> run = {"untilted": None, "tilted": {"ess": 0.5}, "seconds": {"total": 3.0}}
        >>> comparison_table({"a": run, "b": {**run, "tilted": {"ess": 0.25}}}).rows
        [['effective sample size', '0.500', '0.250'], ['seconds', '3.000', '3.000']]
    """
    rows = []
    for title, side, key in MEASURES:
        read = as_read if key == "tv" else dict
        values = [(read(each).get(side) or {}).get(key) for each in metrics.values()]
        if any(value is not None for value in values):
            rows.append([title, *(shown(value) for value in values)])
    return Table("Side by side", "One column for each run.", ["measure", *metrics], rows)


def _page(found: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> Page:
    metrics = {name: pair[0] for name, pair in found.items()}
    settings = {name: config.get("settings", config["debiaser"]) for name, (_, config) in found.items()}
    labels = {"good": "right", "bad": "not right", "note": "uncertain"}
    verdicts = [(tone, f"{name}: {labels[tone]}.", why) for name, m in metrics.items() for tone, why in [balance(m)]]
    return Page(
        title="latentebm: runs compared",
        headline=f"{len(found)} runs side by side",
        lead="Balance and sampling of each run, the settings in which they differ, and their draws.",
        verdicts=verdicts,
        pictures=[each for name in found for each in _pictures(Path(name))],
        grouped="Run by run",
        unfolded=True,
        tables=[comparison_table(metrics), _differences(settings)],
    )


def _differences(settings: dict[str, dict[str, Any]]) -> Table:
    names = dict.fromkeys(name for each in settings.values() for name in each)
    rows = [[name, *(str(each.get(name, "–")) for each in settings.values())] for name in names]
    return Table("Settings", "Those that differ.", ["setting", *settings], [r for r in rows if len(set(r[1:])) > 1])


def _pictures(run: Path) -> list[Picture]:
    words = {"shares": "Class shares", "tilted_draws": "Draws under the tilt"}
    made = [
        picture(run / "figures" / f"{name}.png", f"{title} of {run}", f"{title}, {run}", group=run.name)
        for name, title in words.items()
    ]
    return [each for each in made if each is not None]
