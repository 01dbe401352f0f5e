"""Ways to train an energy, side by side on laws whose likelihood is exact: ours and torchebm's, same nets and budget.

Run ``python benchmarks/training.py`` for everything (about ten minutes on an idle core), or name parts:
``python benchmarks/training.py --datasets rings --methods PCD "torchebm CD" --seeds 0 1``; ``--sensitivity`` runs the
grid of learning rates and chain steps instead. Figures go to ``benchmarks/training.json`` row by row, which keeps what
other parts wrote, and rows that are there are not run again; the tables are printed.

The energy is a perceptron 2→128→128→1 (SiLU) of 6x plus |x|²/8: the same integrable model for every method. All see
the same 10,000 points; 10,000 others judge. Excess is the mean of log p(x) − log p_E(x) over those, in nats: zero is
the data's own entropy. log Z is a sum over 400² cells of [−6, 6]². MMD² compares 2,000 exact draws of the fitted law
with the test points.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.data.batches import Minibatches
from latentebm.data.toy import TOYS
from latentebm.evaluation.quadrature import Grid, mmd
from latentebm.files import write_json
from latentebm.models.networks import mlp
from latentebm.objectives.tilt import likelihood_loss
from latentebm.sampling import MALA, ULA, ImproperSGLD, RandomWalk
from latentebm.training.ebm import MCMCRecipe, fit_ebm
from latentebm.training.fit import DivergedError, fit
from latentebm.training.score import fit_score

RESULTS = Path(__file__).parent / "training.json"
SECONDS = 5.0  # CPU seconds of training a run
POINTS = 10_000
BATCH = 256


class Energy(nn.Module):
    """A perceptron over a wide Gaussian, counting the points it was asked about."""

    def __init__(self, sd: float = 2.0) -> None:
        super().__init__()
        self.net, self.sd, self.evaluations = mlp((2, 128, 128, 1)), sd, 0

    def forward(self, x: Tensor) -> Tensor:
        self.evaluations += x.shape[:-1].numel()
        return self.net(6 * x).squeeze(-1) + x.square().sum(-1) / (2 * self.sd**2)


def wide(n: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.randn(n, 2, generator=generator)


Method = Callable[[Energy, Tensor, int, torch.Generator, float, float], list[str]]


def chains(**settings: Any) -> Method:
    """MCMC maximum likelihood; `factor` multiplies the learning rate, `stride` the chains' step."""

    def run(energy, data, steps, g, factor, stride):
        kernel = settings.get("kernel", MALA(0.03))
        moved = kernel.with_step(kernel.step * stride) if hasattr(kernel, "step") else scaled(kernel, stride)
        recipe = {"lr": 5e-3, "schedule": "onecycle", "n_steps": 10, "buffer_size": 2_000, **settings, "kernel": moved}
        recipe["lr"] *= factor
        epochs = max(1, steps // (len(data) // BATCH))
        return fit_ebm(energy, data, MCMCRecipe(**recipe, epochs=epochs), base=wide, generator=g).log

    return run


def scaled(kernel: ImproperSGLD, stride: float) -> ImproperSGLD:
    return ImproperSGLD(alpha=kernel.alpha * stride, sigma=kernel.sigma * math.sqrt(stride))


def score(**settings: Any) -> Method:
    """Score matching; `stride` multiplies the noise where there is one."""

    def run(energy, data, steps, g, factor, stride):
        given = dict(settings)
        if "sigma" in given:
            given["sigma"] *= stride
        return fit_score(energy, data, **given, steps=steps, lr=5e-3 * factor, generator=g).log

    return run


def base_draws(energy, data, steps, g, factor, stride):
    """The likelihood objective of the tilt: log Z from 1,024 fresh draws of the wide Gaussian."""

    def loss(batch):
        return likelihood_loss(energy.net(6 * batch[0])[:, 0], energy.net(6 * wide(1024, g))[:, 0])

    batches = Minibatches(data, batch_size=BATCH, epochs=max(1, steps // (len(data) // BATCH)), generator=g)
    energy.evaluations += len(batches) * (BATCH + 1024)
    return fit(energy, loss, batches, lr=5e-3 * factor, schedule="onecycle", clip=10.0).log


def peer(name: str, **settings: Any) -> Method:
    """A loss of torchebm in the same loop, with the same optimizer, schedule and clipping."""

    def run(energy, data, steps, g, factor, stride):
        from torchebm import losses, samplers
        from torchebm.core import BaseModel

        class Model(BaseModel):
            def __init__(self) -> None:
                super().__init__()
                self.energy = energy

            def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                return self.energy(x)

        model, given = Model(), dict(settings)
        if name == "ContrastiveDivergence":
            given |= {"sampler": samplers.LangevinDynamics(model=model, step_size=0.01 * stride), "k_steps": 10}
        if "noise_scale" in given:
            given["noise_scale"] *= stride
        objective = getattr(losses, name)(model=model, **given)

        def loss(batch):
            value = objective(batch[0], generator=g)
            return value[0] if isinstance(value, tuple) else value

        batches = Minibatches(data, batch_size=BATCH, epochs=max(1, steps // (len(data) // BATCH)), generator=g)
        return fit(energy, loss, batches, lr=5e-3 * factor, schedule="onecycle", clip=10.0).log

    return run


METHODS: dict[str, Method] = {
    "PCD, MALA": chains(),
    "PCD, ULA": chains(kernel=ULA(0.01)),
    "PCD, random walk": chains(kernel=RandomWalk(0.3)),
    "PCD, ImproperSGLD": chains(kernel=ImproperSGLD(alpha=0.02, sigma=0.02**0.5)),
    "CD-10 from data": chains(start="data"),
    "short runs from noise": chains(start="base"),
    "likelihood, base draws": base_draws,
    "denoising": score(method="denoising", sigma=0.05),
    "sliced": score(method="sliced"),
    "exact score": score(method="exact"),
    "torchebm CD": peer("ContrastiveDivergence"),
    "torchebm PCD": peer("ContrastiveDivergence", persistent=True, buffer_size=2_000),
    "torchebm denoising": peer("DenoisingScoreMatching", noise_scale=0.05),
    "torchebm sliced": peer("SlicedScoreMatching"),
    "torchebm exact score": peer("ScoreMatching"),
}


def pace(method: Method, data: Tensor, seed: int) -> float:
    """Seconds a step, from one short epoch."""
    torch.manual_seed(seed)
    energy, start = Energy(), time.process_time()
    method(energy, data, len(data) // BATCH, torch.Generator().manual_seed(seed), 1.0, 1.0)
    return (time.process_time() - start) / (len(data) // BATCH)


def measure(dataset: str, name: str, seed: int, seconds: float, factor: float = 1.0, stride: float = 1.0) -> dict:
    """One run: as many steps as fit into the time, then the exact likelihood."""
    law, method = TOYS[dataset], METHODS[name]
    g = torch.Generator().manual_seed(1_000 + seed)
    data, test = law.sample(POINTS, generator=g), law.sample(POINTS, generator=g)
    steps = max(200, int(seconds / pace(method, data, seed)))
    torch.manual_seed(seed)
    energy, start = Energy(), time.process_time()
    row: dict[str, Any] = {"dataset": dataset, "method": name, "seed": seed, "factor": factor, "stride": stride}
    try:
        log, diverged = method(energy, data, steps, g, factor, stride), False
    except (DivergedError, FloatingPointError, ValueError) as error:
        log, diverged = [str(error)], True
    row |= {"seconds": time.process_time() - start, "steps": steps, "evaluations": energy.evaluations}
    return row | judge(energy, law, test) | {"diverged": diverged, "log": log}


def judge(energy: Energy, law: Any, test: Tensor) -> dict[str, float | None]:
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
    return tuple(row[k] for k in ("dataset", "method", "seed", "factor", "stride"))


def table(rows: list[dict]) -> str:
    """Means over seeds of the default settings, best first, a part a dataset."""
    head = "| dataset | method | log-likelihood | excess | MMD² | CPU s | steps | energies / 10⁶ |"
    lines = [head, "|---" * 8 + "|"]
    for dataset in TOYS:
        found = [r for r in rows if r["dataset"] == dataset and r["factor"] == r["stride"] == 1 and r["excess"]]
        names = {r["method"] for r in found}
        mean = {n: {c: average(found, n, c) for c in COLUMNS} for n in names}
        for n in sorted(names, key=lambda n: mean[n]["excess"]):
            m = mean[n]
            cells = f"{m['log_likelihood']:.3f} | {m['excess']:.3f} | {m['mmd']:.4f} | {m['seconds']:.0f}"
            lines.append(f"| {dataset} | {n} | {cells} | {m['steps']:.0f} | {m['evaluations'] / 1e6:.1f} |")
    return "\n".join(lines)


COLUMNS = ("log_likelihood", "excess", "mmd", "seconds", "steps", "evaluations")


def average(rows: list[dict], method: str, column: str) -> float:
    values = [r[column] for r in rows if r["method"] == method]
    return sum(values) / len(values)


def sensitivity(rows: list[dict], bound: float = 2.0) -> str:
    """Share of the grid's runs that diverge: stopped, not finite, or worse than the data by more than `bound` nats."""
    lines = ["| method | runs | diverged | worst excess of the others |", "|---" * 4 + "|"]
    for name in METHODS:
        found = [r for r in rows if r["method"] == name and r.get("grid")]
        bad = [r for r in found if r["diverged"] or r["excess"] is None or r["excess"] > bound]
        good = [r["excess"] for r in found if r not in bad]
        if found:
            lines.append(f"| {name} | {len(found)} | {len(bad)} | {max(good, default=math.nan):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(TOYS), choices=list(TOYS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU seconds of training a run")
    parser.add_argument("--sensitivity", action="store_true", help="learning rates and chain steps × 1/5, 1, 5")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="torchebm")
    for dataset in args.datasets:
        for name in args.methods:
            for seed in args.seeds:
                for factor, stride in GRID if args.sensitivity else [(1.0, 1.0)]:
                    add(dataset, name, seed, args.seconds, factor, stride, args.sensitivity)
    rows = load()
    print(table([r for r in rows if not r.get("grid")]), "\n\n", sensitivity(rows), sep="")


GRID = [(f, s) for f in (0.2, 1.0, 5.0) for s in (0.2, 1.0, 5.0)]


def load() -> list[dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def add(dataset: str, name: str, seed: int, seconds: float, factor: float, stride: float, grid: bool) -> None:
    """Run a row that is not there yet and merge it into the file."""
    wanted = (dataset, name, seed, factor, stride)
    if any(key(r) == wanted and bool(r.get("grid")) == grid for r in load()):
        return
    row = measure(dataset, name, seed, seconds, factor, stride) | {"grid": grid}
    write_json(RESULTS, [*load(), row])
    excess = "–" if row["excess"] is None else f"{row['excess']:.3f}"
    print(
        f"{dataset}, {name}, seed {seed}, ×{factor:g}, ×{stride:g}: excess {excess}, {row['seconds']:.0f} s", flush=True
    )


if __name__ == "__main__":
    main()
