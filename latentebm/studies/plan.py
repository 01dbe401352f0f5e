"""How large a reference must be: balance and quality against its size, with the run's model as it is."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from latentebm import processes
from latentebm._version import __version__
from latentebm.checks import check_int, fail
from latentebm.data.images import Images
from latentebm.data.imbalance import draw_shares
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.folders import check_writable, whole_files
from latentebm.disk.manifest import load_config
from latentebm.disk.outputs import check_files, check_place
from latentebm.disk.statefile import read_state, write_state
from latentebm.evaluation.metrics import NEIGHBOURS
from latentebm.files import sha256, write_atomic, write_text
from latentebm.progress import Track, silent
from latentebm.report.page import command_line
from latentebm.studies.plan_page import plan_figure, plan_page
from latentebm.studies.reopen import OpenRun, judged_run, pose_again
from latentebm.workflow.problem import Problem

__all__ = ["SIZES", "plan"]

SIZES = (5, 10, 25, 50, 100, 250, 685)
FILES = ("plan.csv", "plan.png", "plan.html")
JUDGED = ("tv", "frechet", "density", "coverage", "confidence")
WEIGHED = ("ess", "pareto_k", "reliable")


class _Kept(NamedTuple):
    """Where finished rows, and the fit that is under way, stay until the plan is whole."""

    folder: Path
    every: float  # seconds between the checkpoints of a fit

    def row(self, job: tuple[int, int]) -> Path:
        return self.folder / f"row-{job[0]}-{job[1]}.safetensors"


def plan(
    run: Path | str,
    *,
    sizes: Sequence[int] = SIZES,
    seeds: int = 5,
    samples: int = 5000,
    pool: int = 100_000,
    out: Path | str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    track: Track = silent,
    every: float = 60.0,
) -> pd.DataFrame:
    """Fit the tilt to references of several sizes and judge each; the model is not trained again.

    Every size and seed has a random part of the run's reference in the target's shares, folds, weights and draws of
    its own; the spread over seeds says how much luck the choice of reference images is. Several
    processes share the fits. A plan that was stopped or killed goes on, when it is asked for again, with the rows that
    are done and to the same numbers, bit by bit.

    Arguments:
        run: folder that `debias` wrote.
        sizes: reference images per class (mean, where the target is uneven).
        seeds: references of each size.
        samples: images judged each time.
        pool: prior draws of each SNIS pass.
        out: folder of ``plan.csv``, ``plan.png`` and ``plan.html``, replaced where `overwrite`; by default the run's.
        device: of the fits and draws.
        track: shows progress.
        every: seconds between the checkpoints of a fit.

    Returns:
        One row per size and seed: ``size``, ``seed``, ``images``, total variation ``tv``, ``frechet``, ``density``,
        ``coverage``, ``confidence``, ``ess`` (share of the pool), ``pareto_k``, ``reliable``, ``heldout_gain`` (nats)
        and ``seconds``.
    """
    wanted = sorted({check_int("sizes", size) for size in sizes})
    for name, value, low in (("seeds", seeds, 1), ("samples", samples, NEIGHBOURS + 1), ("pool", pool, 1)):
        check_int(name, value, low=low)
    folder = check_place(run if out is None else out, "folder")
    check_files([folder / name for name in FILES], overwrite)
    asked = {"sizes": wanted, "seeds": seeds, "samples": samples, "pool": pool, "device": device}
    with ExitStack() as stack:

        def begin() -> tuple[Path, Path]:
            check_writable(folder / FILES[0])
            load_config(run)  # it is a run before anything is made there
            job = {"latentebm": __version__, "plan": asked, "run": sha256(Path(run) / "config.json")}
            place = stack.enter_context(whole_files(folder / FILES[0], job=job, afresh=overwrite))
            stack.enter_context(checkpoints(place.kept / "judge", every=every, keep=True))
            return place.kept, place.at(folder / FILES[0]).parent

        kept, new = processes.from_main(processes.on_main(begin))  # type: ignore[misc]
        model, problem, rng = pose_again(run, device=device)
        references = {(n, s): _reference(problem, n, s) for n in wanted for s in range(seeds)}
        opened = processes.together(lambda: judged_run(run, model, problem, rng, track=track))
        table = _rows(opened, references, samples, pool, _Kept(kept, every), track)
        before = opened.judge(opened.model.sample_prior(samples).x).as_dict()
        typed = {"sizes": ",".join(map(str, wanted)), "seeds": seeds, "samples": samples, "pool": pool, "out": out}
        processes.on_main(lambda: _write(table, before, new, command_line("plan", run, **typed)))
    return table


def _rows(
    opened: OpenRun, references: dict[tuple[int, int], Images], samples: int, pool: int, kept: _Kept, track: Track
) -> pd.DataFrame:
    """A row for each reference; the processes share those that are not done yet."""
    left = processes.from_main([job for job in references if not kept.row(job).exists()])
    own = processes.share(len(left))

    def work() -> None:
        for job in track(left[own.start : own.stop], "plan"):
            with checkpoints(kept.folder / f"fit-{job[0]}-{job[1]}", every=kept.every):
                write_state(kept.row(job), _row(opened, job, references[job], samples, pool))

    processes.together(work)
    return processes.from_main(pd.DataFrame(processes.on_main(lambda: [read_state(kept.row(j)) for j in references])))


def _write(table: pd.DataFrame, before: dict[str, Any], folder: Path, command: str) -> None:
    figure = plan_figure(table, before)
    write_atomic(folder / FILES[0], lambda p: table.to_csv(p, index=False))
    write_atomic(folder / FILES[1], figure.savefig)
    write_text(folder / FILES[2], plan_page(table, before, figure, command))


def _reference(problem: Problem, size: int, seed: int) -> Images:
    """A random part of the reference in the target's shares, `size` images per class on average."""
    rng, total = torch.Generator().manual_seed(seed), size * len(problem.classes)
    reference, classes = problem.reference, list(problem.classes)
    if total > len(reference):
        most = len(reference) // len(classes)
        raise fail("sizes", f"at most {most}, what the run's reference has per class", size, "leave larger sizes out")
    if reference.labels is None:
        return reference[torch.randperm(len(reference), generator=rng)[:total]]
    return reference[draw_shares(reference.labels, classes, problem.target, total, generator=rng)]


def _row(opened: OpenRun, job: tuple[int, int], reference: Images, samples: int, pool: int) -> dict[str, Any]:
    start, (size, seed) = time.perf_counter(), job
    model = copy.copy(opened.model).set_params(seed=seed, sampler="snis", pool=pool)
    draws = model.fit_tilt(reference.images).sample(samples)
    judged = opened.judge(draws.x).as_dict()
    return {
        "size": size,
        "seed": seed,
        "images": len(reference),
        **{name: judged[name] for name in JUDGED},
        **{name: draws.diagnostics[name] for name in WEIGHED},
        "heldout_gain": model.heldout_gain_,
        "seconds": time.perf_counter() - start,
    }
