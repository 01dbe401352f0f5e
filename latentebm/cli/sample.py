"""The commands ``sample`` and ``report``, which open a finished run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer
from rich.markup import escape

from latentebm.checks import check_choice, check_device_name, check_int, check_number, fail
from latentebm.cli.console import bars, console, errors_exit
from latentebm.disk.folders import check_writable, whole_files
from latentebm.disk.outputs import check_files
from latentebm.settings.fields import SAMPLERS

if TYPE_CHECKING:
    # Heavy modules are imported inside the commands: --help and a mistyped option answer at once.
    from latentebm.debiaser import Debiaser
    from latentebm.workflow.tilt_redraw import TiltRun

__all__ = ["report", "sample"]

CHAINS = {"acceptance": "acceptance", "ess_bulk": "effective draws", "rhat": "R̂", "divergences": "divergences"}
FORMATS = ("npz", "png", "npy")
IN_ONE_FILE = 100_000  # most images that go into one .npz unless it is asked for


@errors_exit()
def sample(
    run: Annotated[Path, typer.Argument(help="run folder of latentebm debias or latentebm tilt")],
    n: Annotated[int, typer.Option("-n", "--samples", help="images to draw")] = 1000,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="file.npz, file.npy, or a folder of shards; by default samples.npz, beyond 100,000 samples/"),
    ] = None,
    form: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--format", help="stream shards to disk: npz, png (both in a folder) or npy (one mapped array)"),
    ] = None,
    shard_size: Annotated[int, typer.Option(help="images per shard, which alone are held in memory")] = 10_000,
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

        latentebm sample runs/debias -n 10000000 --out many

    The .npz holds images (n, C, H, W) in [0, 1], latent (n, d) and log_weight (n,). Shards hold uint8 pixels, are
    written whole, and are drawn from streams of their own: after an interruption the same command goes on.
    """
    _check(n, form, shard_size, strength, sampler, seed)
    check_device_name(device)
    form = _form(out, form, n)
    out = Path("samples" if form else "samples.npz") if out is None else out
    what: dict[str, Any] = {"n": n, "strength": strength, "seed": seed, "sampler": sampler}
    if form is None:
        (out,) = check_files([out], overwrite)
    from latentebm import processes
    from latentebm.workflow.run import check_npz
    from latentebm.workflow.shard_stores import check_stream

    if form is not None:
        place = check_stream(out, form, overwrite)
        processes.on_main(lambda: check_writable(place))
        _print(n, out, _streamed(run, place, what, device, form, shard_size, overwrite))
        return
    with _reserved(check_npz(out), {"run": str(run.resolve()), **what}, overwrite) as at:
        diagnostics = _drawn(run, at, what, device)
    _print(n, out, diagnostics)


def _drawn(run: Path, out: Path | None, what: dict[str, Any], device: str) -> dict[str, Any]:
    """Draws of a run, written into one file by the process that has one: their diagnostics."""
    from latentebm import processes
    from latentebm.workflow.run import save_samples

    asked = {"strength": what["strength"], "seed": what["seed"]}
    with bars() as track:
        draws = _opened(run, what["sampler"], device).sample(what["n"], **asked, track=track)
    processes.on_main(lambda: save_samples(cast(Path, out), draws))
    return draws.diagnostics


def _streamed(
    run: Path, out: Path, what: dict[str, Any], device: str, form: str, size: int, overwrite: bool
) -> dict[str, Any]:
    """Draws of a run, streamed into shards: the worst of their diagnostics."""
    from latentebm.workflow.shards import stream_samples

    model, worst = _opened(run, what["sampler"], device), dict[str, float]()
    asked = {"strength": what["strength"], "seed": what["seed"], "overwrite": overwrite, "log": partial(_worst, worst)}
    with bars() as track:
        stream_samples(model, what["n"], out, form=form, size=size, track=track, **asked)
    return worst


def _opened(run: Path, sampler: str | None, device: str) -> Debiaser | TiltRun:
    """The model of a run, its sampler set; a run of ``latentebm tilt`` has its own sampler and device."""
    from latentebm.debiaser import Debiaser
    from latentebm.workflow.tilt_redraw import TiltRun, is_tilt_run

    if not is_tilt_run(run):
        model = Debiaser.load(run, device=device)
        return model if sampler is None else model.set_params(sampler=sampler).check()
    if sampler is not None:
        raise fail("sampler", "that of the run, which is one of latentebm tilt", sampler, "leave --sampler out")
    if device != "auto":
        raise fail("device", "that on which the run's function puts its model", device, "leave --device out")
    return TiltRun(run)


@contextmanager
def _reserved(out: Path, job: dict[str, Any], overwrite: bool) -> Iterator[Path | None]:
    """Where to write the draws; those that were killed go on. Of several processes the first alone writes."""
    from latentebm import processes
    from latentebm.disk.checkpoint import checkpoints

    with ExitStack() as stack:

        def begin() -> Path:
            place = stack.enter_context(whole_files(out, job={"sample": job}, afresh=overwrite, replace=overwrite))
            stack.enter_context(checkpoints(place.kept, keep=True))
            return place.at(out)

        yield processes.on_main(begin)


def _worst(found: dict[str, float], shard: int, values: dict[str, float]) -> None:
    """Keep the worst of the shards' numbers."""
    for key, value in values.items():
        name = key.rpartition("/")[2]
        found[name] = (min if name == "ess" else max)(value, found.get(name, value))


def _print(n: int, out: Path, diagnostics: dict[str, Any]) -> None:
    """Where the draws are, and what their sampler says of its health."""
    from latentebm.report.words import reliability, worries

    console.print(f"{n:,} images in [bold]{escape(str(out))}[/bold]", highlight=False)
    if "reliable" in diagnostics and "ess" in diagnostics:
        console.print(escape(reliability({"tilted": diagnostics})), highlight=False)
    elif "ess" in diagnostics:
        size, tail = 100 * diagnostics["ess"], diagnostics.get("pareto_k", math.nan)
        console.print(f"Over all shards: effective sample size at least {size:.3g} %, Pareto k̂ at most {tail:.2f}.")
    else:
        names = [name for name in CHAINS if isinstance(diagnostics.get(name), int | float)]
        console.print(", ".join(f"{CHAINS[name]} {diagnostics[name]:.3g}" for name in names), highlight=False)
    for worry in worries({"judged": False, "tilted": diagnostics}):
        console.print(escape(worry), highlight=False)


def _check(n: int, form: str | None, shard_size: int, strength: float, sampler: str | None, seed: int | None) -> None:
    """Refuse what the options alone show to be wrong, before torch is imported."""
    check_int("n", n)
    check_int("shard_size", shard_size)
    check_number("strength", strength, low=0, high=1.5)
    if form is not None:
        check_choice("format", form, FORMATS)
    if sampler is not None:
        check_choice("sampler", sampler, SAMPLERS)
    if seed is not None:
        check_int("seed", seed, low=0)


def _form(out: Path | None, form: str | None, n: int) -> str | None:
    """The format of the shards, None for one .npz: as asked for, else by the name of `out`, else by the number."""
    if form is not None:
        return form
    if out is None:
        return "npz" if n > IN_ONE_FILE else None
    return {".npy": "npy", "": "npz"}.get(out.suffix)


@errors_exit()
def report(run: Annotated[Path, typer.Argument(help="run folder of latentebm debias")]) -> None:
    """Write a run's report.html again, from its metrics and figures.

    [bold]Example[/bold]

        latentebm report runs/debias
    """
    from latentebm.report import render_report

    page = render_report(run)
    console.print(f"Report: [bold]{escape(str(page))}[/bold]", highlight=False)
