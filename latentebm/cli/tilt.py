"""The command ``tilt``: anybody's model, from the shell."""

from __future__ import annotations

from typing import Annotated, Optional

import typer
from rich.markup import escape

from latentebm.cli.console import bars, console, errors_exit

__all__ = ["tilt"]


@errors_exit()
def tilt(
    model: Annotated[str, typer.Option(help="package.module:build, a function that returns the model")],
    reference: Annotated[Optional[str], typer.Option(help="unbiased images: a folder or an .npz")] = None,  # noqa: UP045
    features: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="pixels:8, pca:24, classifier:PATH, torchvision:NAME, timm:NAME or package.module:function"),
    ] = None,
    attribute: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="package.module:function, one value per item; may be repeated"),
    ] = None,
    target: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="wanted shares of the attribute, such as yes:.5,no:.5; as often as --attribute"),
    ] = None,
    pool: Annotated[
        str, typer.Option(help="draws of the model that are weighted, or the time for them: 90s, 10min, 2h")
    ] = "20000",
    sampler: Annotated[
        str, typer.Option(help="snis, or two-stage, which decodes what a cheap energy proposes")
    ] = "snis",
    spool: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(help="keep decoded data on disk, from which a killed run goes on; by default where it pays"),
    ] = None,
    samples: Annotated[int, typer.Option(help="draws to write")] = 1000,
    seed: Annotated[int, typer.Option(help="random seed of the whole run")] = 0,
    out: Annotated[str, typer.Option(help="run folder to write")] = "runs/tilt",
    overwrite: Annotated[bool, typer.Option(help="replace an earlier run")] = False,
) -> None:
    """Tilt your own model to a reference set, or to wanted shares of attributes.

    [bold]Examples[/bold]

        latentebm tilt --model faces:build --reference fair/ --features pixels:8 --out runs/faces

        latentebm tilt --model faces:build --attribute faces:bright --target yes:.5,no:.5 --out runs/bright

        latentebm sample runs/faces -n 1000 --out x.npz
    """
    from latentebm.workflow.tilt_run import TiltSettings, run_tilt

    chosen = {"attributes": tuple(attribute or ()), "targets": tuple(target or ())}
    given = {
        "reference": reference,
        "features": features,
        "pool": pool,
        "sampler": sampler,
        "spool": spool,
        "samples": samples,
        "seed": seed,
    }
    settings = TiltSettings(model=model, out=out, overwrite=overwrite, **given, **chosen)  # type: ignore[arg-type]
    with bars() as track:
        folder = run_tilt(settings, track=track)
    console.print(f"Report: [bold]{escape(str(folder / 'report.html'))}[/bold]", highlight=False)
