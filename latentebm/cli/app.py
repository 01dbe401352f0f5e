"""The command line: the only place that parses arguments and prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from latentebm._version import __version__
from latentebm.cli.missing import register
from latentebm.cli.planning import register as register_plan
from latentebm.progress import Sized, T
from latentebm.settings.job import Settings, read_config

# Heavy modules are imported inside the commands: --help and a mistyped option answer at once.

__all__ = ["app", "main"]

app = typer.Typer(
    name="latentebm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Debias a trained generator with an energy-based tilt and a small reference set, without retraining it.",
)
console = Console()
errors = Console(stderr=True)
WIDE = 118  # columns of a terminal that the intervals of class shares fit into
DATA, MODEL, TILT, DRAWS, RUN = "Data", "Generator", "Tilt", "Draws", "Run"

DEBIAS_HELP = """Train a generator on biased images, tilt it to a small reference set, report class shares.

[bold]Examples[/bold]

MNIST digits 0-4, as in the literature:

    latentebm debias

Ten latent dimensions and ten reference images a class:

    latentebm debias --latent-dim 10 --reference-per-class 10 --out runs/ten

Your own images, without labels, and a reference set:

    latentebm debias --data all.npz --reference fair.npz --out runs/mine

A folder of class folders, cut to a long tail:

    latentebm debias --data photos/ --proportions long-tail:20 --out runs/tail

An energy of the image instead of the code:

    latentebm debias --space data --out runs/data

The settings of an earlier run, another seed:

    latentebm debias --config runs/ten/config.json --seed 1 --out runs/ten-1
"""


OBJECTIVE_HELP = """likelihood (log Z from prior draws; the best balance), jensen (its bound, needs a penalty), nce (a
classifier of reference against prior codes), contrastive (log Z's gradient from Langevin chains), amortized (from a
sampler that learns along; slower), or score (score matching of the codes: no log Z, but it tells less of the balance of
classes that lie apart)"""

SAMPLER_HELP = """snis (one pass of importance resampling), mala or langevin (a Metropolis-adjusted Langevin chain a
draw), pmc (the same from a replay buffer), hmc or nuts (four long chains; slow)"""


def _option(panel: str, text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, show_default=True)


@app.command(help=DEBIAS_HELP)
def debias(
    ctx: typer.Context,
    data: Annotated[str, _option(DATA, "mnist, fashion-mnist, an .npz file, or a folder of class folders")] = "mnist",
    data_root: Annotated[Optional[str], _option(DATA, "folder of torchvision's files")] = None,  # noqa: UP045
    classes: Annotated[Optional[str], _option(DATA, "0-4, 0,2,7, class names, or all")] = None,  # noqa: UP045
    proportions: Annotated[
        Optional[str],  # noqa: UP045
        _option(DATA, "class shares of the biased set: .12,.33,.28,.20,.07 (default for five classes) or long-tail:50"),
    ] = None,
    biased_fraction: Annotated[float, _option(DATA, "share of the images the biased set is cut from")] = 0.6,
    reference_per_class: Annotated[
        Optional[int],  # noqa: UP045
        _option(DATA, "reference images a class; all there is by default"),
    ] = None,
    reference: Annotated[Optional[str], _option(DATA, ".npz of your own reference images")] = None,  # noqa: UP045
    target: Annotated[
        Optional[str],  # noqa: UP045
        _option(DATA, "uniform, reference (its own shares), .5,.3,.2, or 0:.5,1:.5"),
    ] = None,
    latent_dim: Annotated[int, _option(MODEL, "length of the code")] = Settings.latent_dim,
    network: Annotated[str, _option(MODEL, "mlp or conv")] = Settings.network,
    width: Annotated[int, _option(MODEL, "hidden units")] = Settings.width,
    likelihood: Annotated[str, _option(MODEL, "bernoulli or gaussian")] = Settings.likelihood,
    kl_weight: Annotated[
        Optional[float],  # noqa: UP045
        _option(MODEL, "weight of the KL term in training; 1 up to three dimensions, else 1.5 by default"),
    ] = None,
    epochs: Annotated[int, _option(MODEL, "passes over the biased images")] = Settings.epochs,
    precision: Annotated[str, _option(MODEL, "auto, bf16 or fp32")] = Settings.precision,
    space: Annotated[str, _option(TILT, "where the energy lives: latent or data")] = Settings.space,
    positives: Annotated[
        str, _option(TILT, "in data space: reconstructed reference images, or raw ones (these collapse)")
    ] = Settings.positives,
    objective: Annotated[str, _option(TILT, OBJECTIVE_HELP)] = Settings.objective,
    negatives: Annotated[
        str, _option(TILT, "chains of contrastive: persistent, or short runs from the prior")
    ] = Settings.negatives,
    energy_penalty: Annotated[float, _option(TILT, "λ of jensen; 1/4 is calibrated")] = Settings.energy_penalty,
    gradient_penalty: Annotated[float, _option(TILT, "weight of |∇E|²; 0 for none")] = Settings.gradient_penalty,
    calibrate: Annotated[bool, _option(TILT, "artanh calibration of jensen")] = Settings.calibrate,
    posterior: Annotated[str, _option(TILT, "fit on posterior draws or means")] = Settings.posterior,
    folds: Annotated[
        Optional[int],  # noqa: UP045
        _option(TILT, "ensemble members, each without its fold; 5, in data space 3 by default"),
    ] = None,
    clusters: Annotated[
        Optional[int],  # noqa: UP045
        _option(TILT, "soft clusters of the biased images that are reweighted first; 20 for small references; 0: none"),
    ] = None,
    tilt_steps: Annotated[
        Optional[int],  # noqa: UP045
        _option(TILT, "most optimizer steps; 1,500, in data space 400 by default"),
    ] = None,
    sampler: Annotated[str, _option(DRAWS, SAMPLER_HELP)] = Settings.sampler,
    pool: Annotated[
        Optional[int],  # noqa: UP045
        _option(DRAWS, "prior draws of snis; 1,000,000, in data space 100,000 by default"),
    ] = None,
    langevin_steps: Annotated[int, _option(DRAWS, "steps of each chain of mala and pmc")] = Settings.langevin_steps,
    samples: Annotated[int, _option(DRAWS, "images to draw")] = Settings.samples,
    seed: Annotated[int, _option(RUN, "of everything random")] = Settings.seed,
    device: Annotated[str, _option(RUN, "auto, cpu or cuda")] = Settings.device,
    out: Annotated[str, _option(RUN, "run folder to write")] = Settings.out,
    overwrite: Annotated[bool, _option(RUN, "replace an earlier run there")] = Settings.overwrite,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        _option(RUN, "settings from a .toml or .json file, or an earlier run's config.json; options win"),
    ] = None,
) -> None:
    """See `DEBIAS_HELP`."""
    with _errors_exit():
        values = {} if config is None else read_config(config)
        given = {name: value for name, value in ctx.params.items() if name != "config" and _typed(ctx, name)}
        settings = Settings(**{**values, **given})
        from latentebm.workflow.run import debias as run

        with _bars() as track:
            result = run(settings, track=track)
    _print_run(result.folder, result.metrics)


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="run folder of latentebm debias")],
    n: Annotated[int, typer.Option("-n", "--samples", help="images to draw")] = 1000,
    out: Annotated[Path, typer.Option(help=".npz file to write")] = Path("samples.npz"),
    strength: Annotated[float, typer.Option(help="factor of the energy, 0 (untilted) to 1.5")] = 1.0,
    sampler: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="snis, mala, pmc, hmc or nuts; the run's own by default"),
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="of the draws; the run's own by default")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="replace an existing file")] = False,
) -> None:
    """Draw debiased images from a run.

    [bold]Example[/bold]

        latentebm sample runs/debias -n 1000 --out x.npz

        latentebm sample runs/debias --sampler nuts --out nuts.npz

    The file holds images (n, C, H, W) in [0, 1], latent (n, d) and log_weight (n,).
    """
    with _errors_exit():
        if out.exists() and not overwrite:
            raise ValueError(f"out: expected a file that does not exist yet, got {out}; pass --overwrite")
        from latentebm.debiaser import Debiaser
        from latentebm.workflow.run import check_npz, save_samples

        check_npz(out)
        model = Debiaser.load(run, device=device)
        if sampler is not None:
            model.set_params(sampler=sampler).check()
        with _bars() as track:
            draws = model.sample(n, strength=strength, seed=seed, track=track)
        save_samples(out, draws)
    console.print(f"{n:,} images in [bold]{escape(str(out))}[/bold]", highlight=False)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="run folder of latentebm debias")]) -> None:
    """Write a run's report.html again, from its metrics and figures.

    [bold]Example[/bold]

        latentebm report runs/debias
    """
    with _errors_exit():
        from latentebm.report import render_report

        page = render_report(run)
    console.print(f"Report: [bold]{escape(str(page))}[/bold]", highlight=False)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


def _typed(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave this option: only then does it win over the config file."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@contextmanager
def _errors_exit() -> Iterator[None]:
    """Mistakes in settings or data end with their message and exit code 2; anything else is a fault and is shown."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        errors.print(f"[bold red]Error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


@contextmanager
def _bars() -> Iterator[Any]:
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as progress:

        def track(items: Sized[T], description: str) -> Iterator[T]:
            task = progress.add_task(description, total=len(items))
            for item in items:
                yield item
                progress.advance(task)
            # A fit that stopped early is done, not stuck.
            done = progress.tasks[task].completed
            progress.update(task, total=done)

        yield track


def _print_run(folder: Path, metrics: dict[str, Any]) -> None:
    from latentebm.report.page import finding, metric_tables, reliability

    for table in metric_tables(metrics, intervals=console.width >= WIDE):
        if table.title == "Seconds":
            continue
        shown = RichTable(title=table.title, title_justify="left", caption=None)
        for i, head in enumerate(table.head):
            shown.add_column(head, justify="left" if i == 0 else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(escape(finding(metrics)), highlight=False)
    reliable = metrics["tilted"]["reliable"]
    colour, word = ("green", "") if reliable else ("bold red", "UNRELIABLE. ")
    console.print(f"[{colour}]{word}{escape(reliability(metrics))}[/{colour}]", highlight=False)
    if metrics["unjudged"]:
        console.print(escape(f"Class shares are left out: {metrics['unjudged']}"), highlight=False)
    page = folder / "report.html"
    console.print(f"{metrics['seconds']['total']:.0f} s; run folder {escape(str(folder))}", highlight=False)
    opener = f"python -m webbrowser {page.resolve().as_uri()}"
    console.print(f"Report: {escape(str(page))}\nOpen it:  {escape(opener)}", highlight=False, soft_wrap=True)


register(app, errors_exit=_errors_exit)
register_plan(app, errors_exit=_errors_exit, bars=_bars)


def main() -> None:
    """Run the command line.

    Example:
        >>> main.__name__
        'main'
    """
    app()
