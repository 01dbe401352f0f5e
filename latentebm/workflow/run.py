"""The main job: from settings to a run folder with samples, metrics, figures and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentebm import processes
from latentebm._version import __version__
from latentebm.checks import check_int, fail
from latentebm.debiaser import Debiaser
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.folders import Workplace, check_out, run_folder, unfinished
from latentebm.disk.manifest import add_files, as_written
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.metrics import NEIGHBOURS
from latentebm.files import finite, write_atomic, write_json
from latentebm.progress import Track, silent
from latentebm.report import render_report
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.settings.command import as_command
from latentebm.settings.fields import Settings
from latentebm.training.logs import LogFile, log_file, logged
from latentebm.workflow.draws_check import clusters_of, stein_row
from latentebm.workflow.judge import JUDGE, check_made, fit_judge, judge_draws, run_metrics
from latentebm.workflow.panel_metrics import add_panel
from latentebm.workflow.problem import Problem, pose
from latentebm.workflow.run_figures import run_figures

__all__ = ["RunResult", "check_npz", "debias", "resume", "save_samples"]

T = TypeVar("T")
STEIN = 20  # stream of the signs of the Stein test: no other stage's draws shift
CLUSTERS = 21  # stream of the clusters of raw images


@dataclass
class RunResult:
    """Where a run was written, and its numbers.

    Attributes:
        folder: the run folder.
        metrics: the contents of its ``metrics.json``.
    """

    folder: Path
    metrics: dict[str, Any]


@dataclass
class _Clock:
    """Seconds of each stage, in order, and a line of the log for each."""

    log: LogFile | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        start, line = time.perf_counter(), {"stage": name}
        yield line
        self.seconds[name] = time.perf_counter() - start
        if self.log is not None:
            self.log.stage({**line, "seconds": self.seconds[name]})


def debias(settings: Settings, *, track: Track = silent, every: float = 60.0) -> RunResult:
    """Run the whole job: split, VAE, tilt, draws, judgement, figures, report.

    Fits write checkpoints, and the model is saved as soon as it is fitted, in a hidden folder beside the run's that
    stays where the job fails, is stopped or killed. The same settings, or `resume`, then go on from there to the result
    that the run would have had, bit by bit.

    In a process group of torch.distributed every process calls it alike, and all return the same; rank 0 alone writes,
    and there are no checkpoints of fits.

    Arguments:
        settings: what to do.
        track: shows progress.
        every: seconds between the checkpoints of a fit.

    Returns:
        The run folder and its metrics.

    Raises:
        ValueError: settings or data are not as described, or an unfinished run of other settings is there.
        UnmadeError: the trained generator never produces a wanted class (a ValueError); the error holds the model.
        FileNotFoundError: data that are not there.
        DivergedError: a loss became NaN or infinite.
        LostRankError: of several processes one has ended or hangs.

    Example:
        >>> debias(Settings(data="nowhere.npz", out="runs/nowhere"))
        Traceback (most recent call last):
        FileNotFoundError: data: expected a file at nowhere.npz, found none; check the path
    """
    return _debias(settings, track, every, afresh=True)


def resume(run: Path | str, *, track: Track = silent, every: float = 60.0) -> RunResult:
    """Go on with a run that failed, was stopped or killed, with the settings it was begun with.

    Arguments:
        run: the folder it was to write.
        track: shows progress.
        every: seconds between the checkpoints of a fit.

    Raises:
        ValueError: there is no unfinished run, or another version began it; or what `debias` raises.

    Example:
        >>> resume("nowhere")
        Traceback (most recent call last):
        ValueError: resume: expected an unfinished run beside nowhere, got none; start it by debias
    """
    found = unfinished(run)
    if found is None or "settings" not in found[1]:
        raise fail("resume", f"an unfinished run beside {run}", "none", "start it by debias")
    hidden, job = found
    if job.get("latentebm") != __version__:
        fix = "install that version, or start again with overwrite=True"
        raise fail("resume", f"a run begun by version {__version__}", f"one of {job.get('latentebm')}, {hidden}", fix)
    with as_written(hidden):
        settings = Settings(**{**job["settings"], "out": str(run)})
    return _debias(settings, track, every, afresh=False)


def _debias(settings: Settings, track: Track, every: float, *, afresh: bool) -> RunResult:
    out, model = check_out(settings.out, settings.overwrite), Debiaser(**settings.debiaser()).check()
    job = json.loads(json.dumps({"latentebm": __version__, "settings": {**settings.saved(), "out": ""}}))
    with ExitStack() as stack:

        def begin() -> Workplace:
            place = stack.enter_context(run_folder(out, settings.overwrite, job=job, afresh=afresh))
            stack.enter_context(checkpoints(place.kept, every=every, keep=True))
            return place

        # Of several processes rank 0 alone writes; what it cannot do is an error in all.
        place = processes.on_main(begin)
        log = None if place is None else log_file(place, tensorboard=settings.tensorboard)
        stack.enter_context(logged(log))
        metrics = _run(settings, model, place, log, track if processes.rank() == 0 else silent)
    return RunResult(out, metrics)


def _run(
    settings: Settings, model: Debiaser, workplace: Workplace | None, log: LogFile | None, track: Track
) -> dict[str, Any]:
    """Every stage of the job, its results written into a folder."""
    clock, rng = _Clock(log), torch.Generator().manual_seed(settings.seed)

    def write(what: Callable[[Path], T]) -> T | None:
        return processes.on_main(lambda: what(cast(Workplace, workplace).new))

    with clock.stage("data"):
        problem = processes.together(lambda: _posed(settings, rng))
    with clock.stage("vae") as line:
        model.fit_vae(problem.biased.images, problem.reference.images, track=track)
        line |= {"losses": model.vae_log_.losses, "sources": model.sources_.as_dict()}
        write(model.save)
    with clock.stage("classifier"):
        classifier = processes.on_main(lambda: _classifier(problem, model, rng, track))
    with clock.stage("tilt") as line:
        fitted = model.fit_tilt(problem.reference.images, track=track).energy_log_
        line |= {"losses": fitted.losses, "scores": [score.tolist() for score in fitted.scores]}
        write(model.save)
    with clock.stage("draw") as line:
        prior, tilted = model.sample_prior(settings.samples), model.sample(settings.samples, track=track)
        line |= tilted.diagnostics

    def rest(place: Path) -> dict[str, Any]:
        save_samples(place / "samples.npz", tilted)
        if classifier is not None:
            classifier.save(place / JUDGE)
        with clock.stage("judge"):
            verdict = judge_draws(problem, classifier, prior.x, tilted.x, rng, track)
            metrics = run_metrics(problem, model, tilted, verdict, rng)
            metrics["tilted"]["stein"] = stein_row(model.tilt(), tilted, stream(settings.seed, STEIN))
            metrics["clusters"] = clusters_of(problem, tilted, stream(settings.seed, CLUSTERS))
            alike = add_panel(metrics, problem, classifier, model, prior.x, tilted.x, track)
            save_samples(place / "samples.npz", tilted, judges_agree=alike)
        with clock.stage("figures"):
            _write_figures(place, run_figures(problem, model, prior, tilted, metrics, rng, classifier), track)
        metrics["seconds"] = {**clock.seconds, "total": sum(clock.seconds.values())}
        write_json(place / "metrics.json", metrics)
        cast(Workplace, workplace).put_log()
        files = ["samples.npz", "metrics.json", "log.jsonl", *([] if classifier is None else [JUDGE])]
        asked = settings.saved()
        add_files(place, files, settings=asked, command=as_command(asked))
        render_report(place)
        return metrics

    return cast(dict[str, Any], processes.from_main(write(rest)))


def _classifier(problem: Problem, model: Debiaser, generator: torch.Generator, track: Track) -> Classifier | None:
    """The evaluation classifier, once it has seen every wanted class among untilted draws."""
    classifier = fit_judge(problem, generator, next(model.vae_.parameters()).device, track)
    check_made(problem, classifier, model)
    return classifier


def _posed(settings: Settings, generator: torch.Generator) -> Problem:
    problem = pose(settings, generator)
    if not problem.unjudged:
        fix = f"draw more than {NEIGHBOURS} to be judged"
        check_int("samples", settings.samples, low=NEIGHBOURS + 1, fix=fix)
    return problem


def check_npz(path: Path | str) -> Path:
    """Return the path if draws can be saved under its name.

    Raises:
        ValueError: it does not end in .npz.

    Example:
        >>> check_npz("x.npz").name
        'x.npz'
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise fail("out", "a name ending in .npz", str(path), "pass for example out=samples.npz")
    return path


def save_samples(path: Path | str, draws: Draws, *, judges_agree: Tensor | None = None) -> Path:
    """Write draws to an .npz: ``images`` float32 (n, C, H, W) in [0, 1], ``latent`` (n, d), ``log_weight`` (n,) nats.

    What the sampler says of its health is ``diagnostics``, JSON as text. Of judged draws ``judges_agree``, (n,) of
    bool, says whether all judges of real images read them alike.

    Raises:
        ValueError: the path does not end in .npz.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> draws = Draws(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3), torch.zeros(2))
        >>> with np.load(save_samples(Path(tempfile.mkdtemp()) / "x.npz", draws)) as saved:
        ...     sorted(saved)
        ['images', 'latent', 'log_weight']
    """
    path = check_npz(path)
    arrays = {"images": draws.x, "latent": draws.latent, "log_weight": draws.log_weight}
    plain: dict[str, Any] = {k: v.detach().cpu().numpy().astype(np.float32) for k, v in arrays.items()}
    if draws.diagnostics:
        plain["diagnostics"] = np.array(json.dumps(finite(draws.diagnostics)))
    if judges_agree is not None:
        plain["judges_agree"] = judges_agree.cpu().numpy()
    return write_atomic(path, lambda temporary: np.savez_compressed(temporary, **plain))


def _write_figures(folder: Path, figures: dict[str, Figure], track: Track) -> None:
    for name in track(list(figures), "figures"):
        write_atomic(folder / "figures" / f"{name}.png", figures[name].savefig)
