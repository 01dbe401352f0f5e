"""The command ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from latentebm.checks import check_device_name, check_int, fail
from latentebm.cli.console import bars, console, errors_exit

__all__ = ["parse_sizes", "plan"]


@errors_exit()
def plan(
    run: Annotated[Path, typer.Argument(help="run folder of latentebm debias")],
    sizes: Annotated[str, typer.Option(help="reference images per class")] = "5,10,25,50,100,250,685",
    seeds: Annotated[int, typer.Option(help="random references of each size")] = 5,
    samples: Annotated[int, typer.Option(help="images judged each time")] = 5000,
    pool: Annotated[int, typer.Option(help="prior draws each time")] = 100_000,
    out: Annotated[Optional[Path], typer.Option(help="folder to write; by default the run's")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="replace an earlier plan")] = False,
) -> None:
    """Balance and quality against reference size: how many reference images are worth collecting?

    [bold]Example[/bold]

        latentebm plan runs/debias --sizes 5,10,25,50,100,250,685 --seeds 5

    Tilts the run's generator, without training it again, to random parts of its reference, and judges each tilt.
    Writes plan.csv, plan.png and the report plan.html. Every size and seed is a fit of its own, so the example takes
    minutes; fewer seeds and a smaller --pool or --samples are quicker and noisier.
    """
    wanted = parse_sizes(sizes)
    check_device_name(device)
    # Heavy modules are imported inside the command: --help and a mistyped option answer at once.
    from latentebm.studies import plan as study

    settings: dict[str, Any] = {"seeds": seeds, "samples": samples, "pool": pool, "out": out, "device": device}
    with bars() as track:
        table = study.plan(run, sizes=wanted, overwrite=overwrite, track=track, **settings)
    _print(table)
    page = Path(run if out is None else out) / "plan.html"
    console.print(f"Report: [bold]{escape(str(page))}[/bold]", highlight=False)


def parse_sizes(text: str) -> list[int]:
    """Whole numbers separated by commas.

    Raises:
        ValueError: others.

    Example:
        >>> parse_sizes("5,10")
        [5, 10]
    """
    try:
        return [check_int("sizes", int(token)) for token in text.split(",")]
    except ValueError:
        raise fail("sizes", "whole numbers of at least 1", repr(text), "pass for example 5,10,25") from None


def _print(table: Any) -> None:
    shown = Table(title="Reference images per class: mean ± sd over seeds", title_justify="left")
    heads = {"tv": "TV", "frechet": "Fréchet", "coverage": "coverage", "ess": "ESS", "heldout_gain": "gain"}
    for head in ("size", *heads.values()):
        shown.add_column(head, justify="right", no_wrap=True)
    for size, rows in table.groupby("size"):
        mean, spread = rows[list(heads)].mean(), rows[list(heads)].std().fillna(0)
        digits = {**dict.fromkeys(heads, 2), "tv": 3, "frechet": 0}
        cells = (f"{mean[name]:.{digits[name]}f} ± {spread[name]:.{digits[name]}f}" for name in heads)
        shown.add_row(str(size), *cells)
    console.print(shown)
