"""Ways to train an energy, ours and torchebm's, same nets and budget, on distributions whose likelihood is exact.

Run ``python benchmarks/training.py`` for every method on every distribution, or name parts:
``python benchmarks/training.py --datasets rings --methods "PCD, MALA" "torchebm PCD" --seeds 0 1``; ``--sensitivity``
runs a grid of learning rates and chain steps (or noise) instead, on the distributions named. Figures go row by row to
``benchmarks/training.json``, which keeps what other parts wrote, and rows that are there are not run again;
``--show`` only prints the tables. ``benchmarks/training_latents.py`` does the same on ten-dimensional codes of MNIST.

The energy is a perceptron 2→128→128→1 (SiLU) of 6x plus |x|²/8 that starts at the Gaussian itself: the same integrable
model for every method (multi-scale denoising gives it the noise level as well). All see the same 10,000 points; 10,000
others judge. Every method gets the steps that fit into ten CPU seconds of one thread on an idle machine, by the paces
that ``--pace`` measures and keeps in the same file, so that the steps do not depend on what else runs. Batch 256,
AdamW, one-cycle learning rate of peak 0.005, gradient clip 10, parameters averaged over some 100 steps; chains take 10
transitions a step. Settings of ours and of torchebm's were tuned by hand on 8 Gaussians, seed 0, then left alone.

Excess is the mean of log p(x) − log p_E(x) over the judging points, in nats: zero is the data's own entropy. log Z is a
sum over 400² cells of [−6, 6]². MMD² compares 2,000 exact draws of the fitted energy with the judging points.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_methods import BATCH, METHODS, PLANE, Run

from latentebm.data.toy import TOYS
from latentebm.evaluation.quadrature import Grid, mmd
from latentebm.files import write_json
from latentebm.training.fit import DivergedError

RESULTS = Path(__file__).parent / "training.json"
SECONDS = 10.0  # CPU seconds of training a run
GRID_SECONDS = 3.0  # the same in the sensitivity grid
POINTS = 10_000
GRID = [(f, s) for f in (0.2, 1.0, 5.0) for s in (0.2, 1.0, 5.0)]
# A step costs the same; the filling of the buffer is not counted.
PACED_AS = {"torchebm PCD": "torchebm CD", "torchebm CD, smaller step": "torchebm CD"}
COLUMNS = ("log_likelihood", "excess", "mmd", "seconds", "steps", "evaluations")


def pace(method: str, run: Run) -> float:
    """CPU seconds a step: the better of two short epochs after a first one that warms up."""
    few, took = len(run.data) // BATCH, []
    for k in range(3):
        torch.manual_seed(k)
        trial = Run(run.scale, run.data, few, torch.Generator().manual_seed(k))
        energy, start = METHODS[method].build(trial), time.process_time()
        METHODS[method].fit(energy, trial)
        took.append(time.process_time() - start)
    return min(took[1:]) / few


def train(method: str, run: Run, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Fit; returns the energy and what it took. A run that raises has diverged."""
    torch.manual_seed(seed)
    energy, start = METHODS[method].build(run), time.process_time()
    try:
        log, diverged = METHODS[method].fit(energy, run), False
    except (DivergedError, FloatingPointError, ValueError) as error:
        log, diverged = [str(error)], True
    took = {"seconds": time.process_time() - start, "steps": run.steps, "evaluations": energy.evaluations}
    return energy, took | {"diverged": diverged, "log": log}


def measure(dataset: str, method: str, seed: int, steps: int, factor: float = 1.0, stride: float = 1.0) -> dict:
    """One row: train, then the exact likelihood."""
    law, g = TOYS[dataset], torch.Generator().manual_seed(1_000 + seed)
    data, test = law.sample(POINTS, generator=g), law.sample(POINTS, generator=g)
    energy, took = train(method, Run(PLANE, data, steps, g, factor, stride), seed)
    row = {"dataset": dataset, "method": method, "seed": seed, "factor": factor, "stride": stride}
    return row | took | judge(energy, law, test)


def judge(energy: nn.Module, law: Any, test: Tensor) -> dict[str, float | None]:
    grid = Grid()
    if not all(bool(p.isfinite().all()) for p in energy.parameters()):
        return {"log_likelihood": None, "excess": None, "mmd": None, "edge": None}
    log_p = grid.log_likelihood(energy, test)
    draws = grid.sample(energy, 2_000, generator=torch.Generator().manual_seed(5))
    return {
        "log_likelihood": log_p.mean().item(),
        "excess": (law.log_prob(test).double() - log_p).mean().item(),
        "mmd": mmd(draws, test[:2_000]),
        "edge": grid.edge_mass(energy),
    }


def key(row: dict) -> tuple:
    return tuple(row[k] for k in ("dataset", "method", "seed", "factor", "stride", "budget"))


def average(rows: list[dict], method: str, column: str) -> float:
    values = [r[column] for r in rows if r["method"] == method and r[column] is not None]
    return sum(values) / len(values) if values else math.nan


def table(rows: list[dict]) -> str:
    """Means over seeds of the default settings, best first, a part a dataset."""
    head = "| dataset | method | seeds | log-likelihood | excess | MMD² | CPU s | steps | energies / 10⁶ |"
    lines = [head, "|---" * 9 + "|"]
    for dataset in TOYS:
        found = [r for r in rows if r["dataset"] == dataset]
        mean = {n: {c: average(found, n, c) for c in COLUMNS} for n in {r["method"] for r in found}}
        for n in sorted(mean, key=lambda n: mean[n]["excess"]):
            m, seeds = mean[n], sum(r["method"] == n for r in found)
            cells = f"{m['log_likelihood']:.3f} | {m['excess']:.3f} | {m['mmd']:.4f} | {m['seconds']:.0f}"
            lines.append(f"| {dataset} | {n} | {seeds} | {cells} | {m['steps']:.0f} | {m['evaluations'] / 1e6:.1f} |")
    return "\n".join(lines)


def sensitivity(rows: list[dict], bound: float = 2.0) -> str:
    """Share of the grid's runs that diverge: stopped, not finite, or worse than the data by more than `bound` nats."""
    lines = ["| method | runs | diverged | rolled back | best | median |", "|---" * 6 + "|"]
    for name in METHODS:
        found = [r for r in rows if r["method"] == name]
        bad = [r for r in found if r["diverged"] or r["excess"] is None or not r["excess"] <= bound]
        all_ = sorted(math.inf if r["excess"] is None else r["excess"] for r in found)
        if found:
            backs = sum(bool(r["log"]) for r in found)
            numbers = f"{len(found)} | {len(bad)} | {backs} | {all_[0]:.3f} | {all_[len(all_) // 2]:.3f}"
            lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines)


def load() -> dict[str, Any]:
    """Paces in CPU seconds a step, by method, and rows."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"pace": {}, "rows": []}


def measure_paces(methods: list[str]) -> None:
    data = TOYS["8 Gaussians"].sample(POINTS, generator=torch.Generator().manual_seed(0))
    for method in methods:
        held = load()
        held["pace"][method] = pace(method, Run(PLANE, data, 0, torch.Generator()))
        write_json(RESULTS, held)
        print(f"{method}: {1e3 * held['pace'][method]:.2f} ms a step", flush=True)


def add(
    measured: Callable[..., dict], dataset: str, method: str, seed: int, seconds: float, factor: float, stride: float
) -> None:
    """Run a row that is not there yet and merge it into the file."""
    wanted = (dataset, method, seed, factor, stride, seconds)
    if any(key(r) == wanted for r in load()["rows"]):
        return
    pace_of = load()["pace"][PACED_AS.get(method, method)]
    row = measured(*wanted[:3], round(seconds / pace_of), factor, stride) | {"budget": seconds}
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several parts may run at once
        held = load()
        write_json(RESULTS, held | {"rows": [*held["rows"], row]})
    found = ", ".join(f"{c} {row[c]:.3f}" for c in ("excess", "gain") if row.get(c) is not None)
    at = f"{dataset}, {method}, seed {seed}, ×{factor:g}, ×{stride:g}"
    print(f"{at}: {found or 'not finite'}, {row['seconds']:.0f} s, {row['steps']} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(TOYS), choices=list(TOYS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, help="CPU seconds of training a run, on an idle machine")
    parser.add_argument("--sensitivity", action="store_true", help="learning rates and chain steps × 1/5, 1, 5")
    parser.add_argument("--pace", action="store_true", help="only measure the seconds a step; on an idle machine")
    parser.add_argument("--show", action="store_true", help="run nothing")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="torchebm")
    torch.set_num_threads(1)
    if args.pace:
        measure_paces(args.methods)
        return
    seconds = args.seconds or (GRID_SECONDS if args.sensitivity else SECONDS)
    wanted = [(s, d, m) for s in args.seeds for d in args.datasets for m in args.methods]
    for seed, dataset, method in [] if args.show else wanted:
        for factor, stride in GRID if args.sensitivity else [(1.0, 1.0)]:
            add(measure, dataset, method, seed, seconds, factor, stride)
    rows = load()["rows"]
    grid = [r for r in rows if r["budget"] == GRID_SECONDS]
    print(table([r for r in rows if r["budget"] == SECONDS]), "\n\n", sensitivity(grid), sep="")


if __name__ == "__main__":
    main()
