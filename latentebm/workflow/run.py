"""The main job: from settings to a run folder with samples, metrics, figures and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure

from latentebm import processes
from latentebm.checks import check_int, fail
from latentebm.debiaser import Debiaser
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.metrics import NEIGHBOURS
from latentebm.files import sha256, write_atomic, write_json, write_text
from latentebm.progress import Track, silent
from latentebm.report import render_report
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.settings.fields import Settings
from latentebm.workflow.draws_check import stein_row
from latentebm.workflow.folder import check_out, run_folder
from latentebm.workflow.judge import check_made, fit_judge, judge_draws, run_metrics
from latentebm.workflow.problem import Problem, pose
from latentebm.workflow.run_figures import run_figures

__all__ = ["RunResult", "check_npz", "debias", "save_samples"]

STEIN = 20  # stream of the signs of the Stein test: no other stage's draws shift


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

    seconds: dict[str, float] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        start, line = time.perf_counter(), {"stage": name}
        yield line
        self.seconds[name] = time.perf_counter() - start
        self.lines.append({**line, "seconds": self.seconds[name]})


def debias(settings: Settings, *, track: Track = silent) -> RunResult:
    """Run the whole job: split, VAE, tilt, draws, judgement, figures, report.

    In a process group of torch.distributed every process calls it alike, and all return the same; rank 0 alone writes.

    Arguments:
        settings: what to do.
        track: shows progress.

    Returns:
        The run folder and its metrics.

    Raises:
        ValueError: settings or data are not as described; nothing is written then.
        UnmadeError: the trained generator never produces a wanted class (a ValueError); nothing is written then, and
            the error holds the trained model.
        FileNotFoundError: data that are not there; nothing is written then.
        DivergedError: a loss became NaN or infinite; nothing is written then.
        LostRankError: of several processes one has ended or hangs; nothing is written then.

    Example:
        >>> debias(Settings(data="nowhere.npz", out="runs/nowhere"))
        Traceback (most recent call last):
        FileNotFoundError: data: expected a file at nowhere.npz, found none; check the path
    """
    out, model = check_out(settings.out, settings.overwrite), Debiaser(**settings.debiaser()).check()
    with ExitStack() as stack:
        # Of several processes rank 0 alone writes; what it cannot do is an error in all.
        folder = processes.on_main(lambda: stack.enter_context(run_folder(out, settings.overwrite)))
        metrics = _run(settings, model, folder, track if processes.rank() == 0 else silent)
    return RunResult(out, metrics)


def _run(settings: Settings, model: Debiaser, folder: Path | None, track: Track) -> dict[str, Any]:
    """Every stage of the job, its results written into a folder."""
    clock, rng = _Clock(), torch.Generator().manual_seed(settings.seed)
    with clock.stage("data"):
        problem = processes.together(lambda: _posed(settings, rng))
    with clock.stage("vae") as line:
        line["losses"] = model.fit_vae(problem.biased.images, track=track).vae_log_.losses
    with clock.stage("classifier"):
        classifier = processes.on_main(lambda: _classifier(problem, model, rng, track))
    with clock.stage("tilt") as line:
        log = model.fit_tilt(problem.reference.images, track=track).energy_log_
        line |= {"losses": log.losses, "scores": [score.tolist() for score in log.scores]}
    with clock.stage("draw") as line:
        prior, tilted = model.sample_prior(settings.samples), model.sample(settings.samples, track=track)
        line |= tilted.diagnostics

    def rest() -> dict[str, Any]:
        with clock.stage("judge"):
            verdict = judge_draws(problem, classifier, prior.x, tilted.x, rng, track)
            metrics = run_metrics(problem, model, tilted, verdict, rng)
            metrics["tilted"]["stein"] = stein_row(model.tilt(), tilted, stream(settings.seed, STEIN))
        with clock.stage("figures"):
            _write_figures(cast(Path, folder), run_figures(problem, model, prior, tilted, verdict, rng), track)
        metrics["seconds"] = {**clock.seconds, "total": sum(clock.seconds.values())}
        _write(cast(Path, folder), settings, model, tilted, metrics, clock)
        return metrics

    return cast(dict[str, Any], processes.from_main(processes.on_main(rest)))


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


def save_samples(path: Path | str, draws: Draws) -> Path:
    """Write draws to an .npz: ``images`` float32 (n, C, H, W) in [0, 1], ``latent`` (n, d), ``log_weight`` (n,) nats.

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
    return write_atomic(path, lambda temporary: np.savez_compressed(temporary, **plain))


def _write_figures(folder: Path, figures: dict[str, Figure], track: Track) -> None:
    for name in track(list(figures), "figures"):
        write_atomic(folder / "figures" / f"{name}.png", figures[name].savefig)


def _write(
    folder: Path, settings: Settings, model: Debiaser, tilted: Draws, metrics: dict[str, Any], clock: _Clock
) -> None:
    save_samples(folder / "samples.npz", tilted)
    model.save(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["settings"] = {name: config["debiaser"][name] for name in settings.debiaser()} | settings.plain()
    config["manifest"]["samples.npz"] = sha256(folder / "samples.npz")
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", metrics)
    write_text(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in clock.lines))
    render_report(folder)
