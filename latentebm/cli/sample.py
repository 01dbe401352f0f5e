"""The commands ``sample`` and ``report``, which open a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from latentebm.checks import fail
from latentebm.cli.console import bars, console, errors_exit

__all__ = ["report", "sample"]


@errors_exit()
def sample(
    run: Annotated[Path, typer.Argument(help="run folder of latentebm debias")],
    n: Annotated[int, typer.Option("-n", "--samples", help="images to draw")] = 1000,
    out: Annotated[Path, typer.Option(help=".npz file to write")] = Path("samples.npz"),
    strength: Annotated[float, typer.Option(help="factor of the energy, 0 (untilted) to 1.5")] = 1.0,
    sampler: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="snis, mala, pmc, hmc, nuts or auto; by default the run's own"),
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="random seed of the draws; by default the run's own")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="replace an existing file")] = False,
) -> None:
    """Draw debiased images from a run.

    [bold]Example[/bold]

        latentebm sample runs/debias -n 1000 --out x.npz

        latentebm sample runs/debias --sampler nuts --out nuts.npz

    The file holds images (n, C, H, W) in [0, 1], latent (n, d) and log_weight (n,).
    """
    if out.exists() and not overwrite:
        raise fail("out", "a file that does not exist yet", f"{out}", "choose another, or pass --overwrite")
    from latentebm.debiaser import Debiaser
    from latentebm.workflow.run import check_npz, save_samples

    check_npz(out)
    model = Debiaser.load(run, device=device)
    if sampler is not None:
        model.set_params(sampler=sampler).check()
    with bars() as track:
        draws = model.sample(n, strength=strength, seed=seed, track=track)
    save_samples(out, draws)
    console.print(f"{n:,} images in [bold]{escape(str(out))}[/bold]", highlight=False)


@errors_exit()
def report(run: Annotated[Path, typer.Argument(help="run folder of latentebm debias")]) -> None:
    """Write a run's report.html again, from its metrics and figures.

    [bold]Example[/bold]

        latentebm report runs/debias
    """
    from latentebm.report import render_report

    page = render_report(run)
    console.print(f"Report: [bold]{escape(str(page))}[/bold]", highlight=False)
