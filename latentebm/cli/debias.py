"""The command ``debias``: its help, its options and what it prints at the end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from latentebm.checks import check_device_name, fail
from latentebm.cli.console import bars, console, errors, errors_exit, print_table
from latentebm.cli.named_places import NamedPlaces
from latentebm.cli.options import given, with_options
from latentebm.disk.folders import unfinished
from latentebm.settings.config import read_config
from latentebm.settings.fields import Settings

__all__ = ["register"]

WIDE = 118  # columns of a terminal that the intervals of class shares fit into
TONES = {"good": "green", "bad": "bold red", "note": "yellow"}

HELP = """Train a generator on biased images, tilt it to a small reference set, report class shares.

[bold]Examples[/bold]

MNIST digits 0-4, as in the literature:

    latentebm debias

Ten latent dimensions and ten reference images per class:

    latentebm debias --latent-dim 10 --reference-per-class 10 --out runs/ten

Your own images, without labels, and a reference set:

    latentebm debias --data all.npz --reference fair.npz --out runs/mine

A folder of class folders, cut to a long tail:

    latentebm debias --data photos/ --proportions long-tail:20 --out runs/tail

An energy on the image instead of the code:

    latentebm debias --space data --out runs/data

The settings of an earlier run, another seed:

    latentebm debias --config runs/ten/config.json --seed 1 --out runs/ten-1

A run that was stopped, killed or failed:

    latentebm debias --resume runs/ten
"""


def register(app: typer.Typer, declaring: type[Settings] = Settings) -> None:
    """Add the command, with one option for each setting that a class declares.

    Example:
        >>> from typer.testing import CliRunner
        >>> app = typer.Typer()
        >>> register(app)
        >>> "--latent-dim" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
        True
    """

    def debias(ctx: typer.Context, config: Path | None, resume: Path | None, **_: Any) -> None:
        with errors_exit(), _from(config, ctx):
            values, typed = {} if config is None else read_config(config, declaring), given(ctx)
            if resume is not None and (values or typed):
                got = ", ".join(typed) or "config"
                raise fail("resume", "no other option, since a run goes on with its own settings", got, "leave it out")
            # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
            if resume is None:
                settings = declaring(**{**values, **typed})
                check_device_name(settings.device)
                from latentebm.workflow import run

                with _naming(Path(settings.out)), bars() as track:
                    result = run.debias(settings, track=track)
            else:
                from latentebm.workflow import run

                with _naming(resume), bars() as track:
                    result = run.resume(resume, track=track)
        _print(result.folder, result.metrics)

    app.command("debias", help=HELP, cls=NamedPlaces)(with_options(debias, declaring))


@contextmanager
def _from(config: Path | None, ctx: typer.Context) -> Iterator[None]:
    """Let what is said of a setting name the file that it is from."""
    try:
        yield
    except ValueError as error:
        name, colon, rest = str(error).partition(":")
        if config is None or not name.isidentifier() or name in ("config", *given(ctx)):
            raise
        raise ValueError(f"{name} {config}{colon}{rest}") from None


@contextmanager
def _naming(out: Path) -> Iterator[None]:
    """Where a run ends early, say where its model is and how to go on."""
    try:
        yield
    except BaseException:
        found = unfinished(out)
        if found is not None:
            text = (
                f"What was fitted is kept in {found[0]}; go on with: latentebm debias --resume {shlex.quote(str(out))}"
            )
            errors.print(escape(text), highlight=False, soft_wrap=True)
        raise


def _print(folder: Path, metrics: dict[str, Any]) -> None:
    from latentebm.report.panel_table import remarks
    from latentebm.report.run_tables import metric_tables
    from latentebm.report.words import balance, finding, reliability

    for table in metric_tables(metrics, intervals=console.width >= WIDE):
        if table.title == "Seconds":
            continue
        print_table(table.title, table.head, table.rows)
    console.print(escape(finding(metrics)), highlight=False)
    tone, sentence = balance(metrics)
    console.print(f"[{TONES[tone]}]Balance: {escape(sentence)}[/{TONES[tone]}]", highlight=False)
    colour, word = ("green", "") if metrics["tilted"]["reliable"] else ("bold red", "UNRELIABLE. ")
    console.print(f"[{colour}]{word}{escape(reliability(metrics))}[/{colour}]", highlight=False)
    for remark in remarks(metrics):
        console.print(escape(remark), highlight=False)
    if metrics["unjudged"]:
        console.print(escape(f"Class shares are left out: {metrics['unjudged']}"), highlight=False)
    page = folder / "report.html"
    console.print(f"{metrics['seconds']['total']:.0f} s; run folder {escape(str(folder))}", highlight=False)
    opener = f"python -m webbrowser {page.resolve().as_uri()}"
    console.print(f"Report: {escape(str(page))}\nOpen it:  {escape(opener)}", highlight=False, soft_wrap=True)
