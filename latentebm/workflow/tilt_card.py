"""A tilt in words: the model card that goes with it, and its report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentebm.checks import in_markdown
from latentebm.plots import plot_targets
from latentebm.report.page import Page, Picture, command_line, drawn, picture, render_page
from latentebm.report.run_tables import Table
from latentebm.workflow.tilt_settings import packages_of

__all__ = ["tilt_card", "tilt_page"]

OFF = 0.1  # of a share: what an interval may miss its target by; share of draws that may repeat
HEADER = "---\nlibrary_name: latentebm\ntags:\n- latentebm\n- energy-based-model\n- debiasing\n---\n"
LIMITS = (
    "The tilt reweights what the model produces and adds nothing to it: what the model never makes stays absent. It "
    "is refused over a model with other weights. Shares are those that the attribute's function reads, with its errors."
)


COPIED = (
    "Share of draws nearer to a reference image than to any of as many untilted draws, in fixed features of images. A "
    "tilt repeats no reference image; where it favours the few draws that look like one, the share after rises."
)
ORDERED = (
    "Draws of the tilted model of lowest and highest energy, row by row from the likeliest, and the energy of each; "
    "samples.npz holds that of every draw, as minus its log_weight."
)


def tilt_card(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The card of a run of ``latentebm tilt``, Markdown with the header and the sections of the Hugging Face hub.

    Example:
        >>> weights = {"ess": 0.5, "pareto_k": 0.1, "reliable": True}
        >>> run = {"model": "my.gan:build", "reference": "faces", "features": "pixels:8", "pool": 9, "attributes": []}
        >>> print(tilt_card({"tilted": weights, "shares": {}, "samples": 9, "gain": 0.2}, run).splitlines()[8])
        # Tilt of my.gan:build
    """
    figures = [f"![{name}](figures/{name}.png)" for name in ("before", "after") if "energies" in metrics]
    parts = {
        f"# Tilt of {in_markdown(settings['model'])}": [
            f"An energy over the codes of {in_markdown(settings['model'])}, without that model. It balances "
            f"{in_markdown(_aim(settings))}.",
            *figures,
        ],
        "## How to get started": [f"```python\n{_start(settings)}\n```"],
        "## Evaluation": [
            *_share_tables(metrics, settings),
            f"Shares of {metrics['samples']:,} draws. {_gained(metrics)}{_weights(metrics)}",
            *[f"Nearer to a reference item than to as many untilted draws, {n}: {s}." for n, s in _copies(metrics)],
        ],
        "## Training details": [f"```json\n{json.dumps(_told(settings), indent=2)}\n```"],
        "## Bias, risks and limitations": [*_worries(metrics), LIMITS],
    }
    blocks = [block for title, texts in parts.items() for block in (title, *texts)]
    return HEADER + "\n" + "\n\n".join(blocks) + "\n"


def _share_tables(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    found = []
    for name, rows in metrics["shares"].items():
        head = [in_markdown(name), *_heads(settings)]
        lines = [head, ["---"] * len(head), *[[in_markdown(cell) for cell in _cells(row)] for row in rows]]
        found.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return found


def _start(settings: Mapping[str, Any]) -> str:
    """How a stranger draws from the tilt."""
    plain = re.fullmatch(r"([\w.]+):(\w+)", settings["model"])
    module, build = plain.groups() if plain else ("package.module", "build")
    trusted = [name for name in packages_of(settings) if name.isidentifier()]
    return (
        f"import torch\nfrom {module} import {build}\nfrom latentebm import SNIS, load_tilt\n\n"
        f"tilt = load_tilt(folder, {build}(), trusted={trusted})  # the folder of these files\n"
        f"draws = SNIS(pool={settings['pool']}).draw(tilt, 100, generator=torch.Generator().manual_seed(0))"
    )


def _gained(metrics: Mapping[str, Any]) -> str:
    gain = metrics.get("gain")
    return "" if gain is None else f"Held-out reference items gain {gain:.3f} nats each. "


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide the tilt, no path of the machine that made it."""
    told = {name: value for name, value in settings.items() if name not in ("out", "overwrite", "tensorboard", "spool")}
    return told | ({"reference": Path(told["reference"]).name} if told.get("reference") else {})


def tilt_page(folder: Path, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The report of a run of ``latentebm tilt``, one page of HTML."""
    head = ["value", *_heads(settings)]
    sentence = f"{metrics['samples']:,} draws each."
    tables = [Table(name, sentence, head, [_cells(r) for r in rows]) for name, rows in metrics["shares"].items()]
    weights = [[key, f"{value:.4g}"] for key, value in metrics["tilted"].items() if isinstance(value, float)]
    tables.append(Table("Weights", "How well the draws represent the tilt.", ["quantity", "value"], weights))
    grids = [
        picture(folder / "figures" / f"{name}.png", f"A grid of draws {name} the tilt.", sentence)
        for name, sentence in (("before", "Draws of the model as it is."), ("after", "Draws of the tilted model."))
    ]
    grids.append(picture(folder / "figures" / "energy.png", "A grid of draws ordered by energy.", ORDERED))
    energies = metrics.get("energies") or []
    if metrics.get("copied"):
        tables.append(Table("Copies", COPIED, ["draws", "share"], _copies(metrics)))
    if energies:
        rows = [[str(i + 1), f"{energy:.3f}"] for i, energy in enumerate(energies)]
        tables.append(Table("Energy of each", ORDERED, ["place in the grid", "energy, nats"], rows))
    reliable = metrics["tilted"]["reliable"]
    sampling = ("good", "Sampling is reliable.") if reliable else ("bad", "Unreliable.")
    plain = [[name, str(value)] for name, value in settings.items() if value not in (None, (), [])]
    page = Page(
        title=f"latentebm: tilt of {settings['model']}",
        headline=_headline(metrics, settings),
        lead=f"The tilt of {settings['model']} balances {_aim(settings)}.",
        verdicts=[*_reached(metrics), (*sampling, _weights(metrics))],
        finding=_shares_figure(metrics),
        before=grids[0],
        after=grids[1],
        pictures=[grids[2]] if grids[2] else [],
        worries=[*_worries(metrics), LIMITS],
        tables=[*tables, Table("Settings", "How the run was made.", ["setting", "value"], plain)],
        command=command_line("tilt", **_flags(settings)),
    )
    return render_page(page)


def _heads(settings: Mapping[str, Any]) -> list[str]:
    return ["reference" if settings["reference"] else "target", "before", "after (95 % interval)"]


def _copies(metrics: Mapping[str, Any]) -> list[list[str]]:
    found = metrics.get("copied") or {}
    return [[f"{name} the tilt", f"{100 * share:.1f} %"] for name, share in found.items()]


def _headline(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    rows = [(name, row) for name, rows in metrics["shares"].items() for row in rows]
    if rows:
        name, row = max(rows, key=lambda pair: pair[1]["after"] - pair[1]["before"])
        said = f"{name} is {row['value']}: {100 * row['before']:.1f} → {100 * row['after']:.1f} %"
        return said if row["target"] is None else f"{said}, target {100 * row['target']:.3g} %"
    if metrics["gain"] is None:
        return f"Tilt of {settings['model']}"
    return f"Held-out reference items gain {metrics['gain']:.3f} nats each"


def _reached(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Whether every wanted share lies in its interval; without wanted shares nothing says so."""
    rows = [(name, row) for name, rows in metrics["shares"].items() for row in rows if row["target"] is not None]
    off = [(name, r) for name, r in rows if not r["interval"][0] - OFF <= r["target"] <= r["interval"][1] + OFF]
    if off:
        named = "; ".join(f"{n} is {r['value']}: {r['after']:.3f}, wanted {r['target']:.3f}" for n, r in off)
        return [("bad", "The balance is not right.", f"{named}.")]
    if rows:
        return [("good", "The balance is right.", f"Every wanted share lies within {OFF} of its 95 % interval.")]
    if metrics["gain"] == 0:
        return [("bad", "Nothing was tilted.", "Held-out reference items rejected every tilt: the draws are untilted.")]
    return [("note", "The balance is not measured.", "Pass --attribute to have shares of the draws read.")]


def _shares_figure(metrics: Mapping[str, Any]) -> Picture | None:
    rows = [(name, row) for name, rows in metrics["shares"].items() for row in rows]
    if not rows:
        return None
    targets = [
        {
            "name": f"{name}: {row['value']}",
            "wanted": row["target"],
            "untilted": dict.fromkeys(("value", "low", "high"), row["before"]),
            "tilted": dict(zip(("value", "low", "high"), (row["after"], *row["interval"]), strict=True)),
        }
        for name, row in rows
    ]
    alt = "; ".join(f"{name} is {row['value']}: {row['before']:.3f}, then {row['after']:.3f}" for name, row in rows)
    return drawn(plot_targets(targets), alt, "Shares before and after the tilt, with 95 % intervals.")


def _worries(metrics: Mapping[str, Any]) -> list[str]:
    repeated = metrics["tilted"].get("duplicates") or 0
    return [f"{100 * repeated:.0f} % of the draws repeat another one: take a larger --pool."] if repeated > OFF else []


def _flags(settings: Mapping[str, Any]) -> dict[str, Any]:
    flags = {"attributes": "attribute", "targets": "target"}
    return {flags.get(name, name): value for name, value in settings.items() if name not in ("out", "overwrite")}


def _aim(settings: Mapping[str, Any]) -> str:
    if settings["reference"]:
        seen = settings["features"] or "codes"
        return f"the model's draws as the reference {Path(settings['reference']).name}, seen through {seen}"
    return "; ".join(f"{a} to {t}" for a, t in zip(settings["attributes"], settings["targets"], strict=True))


def _cells(row: Mapping[str, Any]) -> list[str]:
    wanted = "–" if row["target"] is None else f"{row['target']:.3f}"
    low, high = row["interval"]
    return [str(row["value"]), wanted, f"{row['before']:.3f}", f"{row['after']:.3f} ({low:.3f}–{high:.3f})"]


def _weights(metrics: Mapping[str, Any]) -> str:
    t = metrics["tilted"]
    state = "reliable" if t["reliable"] else "not reliable: a few draws carry almost all the weight"
    return f"Effective sample size {100 * t['ess']:.3g} % of the pool; the weights are {state}."
