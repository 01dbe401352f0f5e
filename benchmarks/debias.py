"""Balance of the main job over dimensions, reference sizes, objectives and seeds: the table of the README.

    python benchmarks/debias.py [--seeds 0 1 2] [--dims 2 10] [--prior auto] [--rows ROW …] [--json FILE]

One VAE is trained for each dimension and seed, and one classifier in all; every row tilts the same VAE. Rows measured
again replace their like in FILE and leave the others. VAEs are kept in --folder. Objectives that need a standard normal
prior are left out where it is learned: pass --prior normal for them.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from latentebm.data.imbalance import draw_shares
from latentebm.debiaser import Debiaser
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.metrics import Judgement, judge
from latentebm.files import write_atomic, write_json
from latentebm.models.saving import load_weights, save_weights
from latentebm.models.vae import VAE
from latentebm.settings.fields import Settings
from latentebm.workflow.judge import accuracy, fit_judge
from latentebm.workflow.problem import Problem, pose

# Row name: reference images a class (None for all) and the settings that differ from the defaults.
ROWS: dict[str, tuple[int | None, dict]] = {
    "likelihood, 685 per class": (None, {}),
    "likelihood, 685, Langevin": (None, {"sampler": "langevin"}),
    "jensen λ=1/4, 685": (None, {"objective": "jensen"}),
    "jensen λ=1/4, calibrated, 685": (None, {"objective": "jensen", "calibrate": True}),
    "as published: jensen λ=.1, gradient penalty .1, means, 685": (
        None,
        {
            "objective": "jensen",
            "energy_penalty": 0.1,
            "gradient_penalty": 0.1,
            "posterior": "means",
            "folds": 1,
        },
    ),
    "likelihood, 10 per class": (10, {}),
    "nce, 685": (None, {"objective": "nce"}),
    "contrastive, 685": (None, {"objective": "contrastive"}),
    "contrastive from the prior, 685": (None, {"objective": "contrastive", "negatives": "prior"}),
    "score, 685": (None, {"objective": "score"}),
    "amortized, 685": (None, {"objective": "amortized"}),
    "data space: likelihood, 685": (None, {"space": "data"}),
    "data space: jensen λ=1/4, 685": (None, {"space": "data", "objective": "jensen"}),
    "data space: nce, 685": (None, {"space": "data", "objective": "nce"}),
    "data space: contrastive, 685": (None, {"space": "data", "objective": "contrastive"}),
    "data space: raw positives, likelihood, 685": (None, {"space": "data", "positives": "raw"}),
}
NEED_NORMAL = ("contrastive", "score", "amortized")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--prior", choices=["auto", "normal", "mixture"], default="auto")
    parser.add_argument("--folder", type=Path, default=Path("runs/debias-rows"))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    results: list[dict] = []
    classifier = None
    for seed in arguments.seeds:
        for dim in arguments.dims:
            settings = Settings(latent_dim=dim, seed=seed, epochs=arguments.epochs, prior=arguments.prior)
            rng = torch.Generator().manual_seed(seed)
            problem = pose(settings, rng)
            if classifier is None:
                classifier = judge_of(problem, arguments.folder)
                print(f"classifier accuracy {accuracy(classifier, problem.judge_test):.4f}", flush=True)
            for line in study(problem, settings, classifier, arguments.rows, rng, arguments.folder):
                results.append(line)
                if arguments.json:
                    merge(arguments.json, line)
    print_table(results)


def judge_of(problem: Problem, folder: Path) -> Classifier:
    path, classifier = folder / "judge.safetensors", Classifier((1, 28, 28), 10).eval()
    if not path.is_file():
        save_weights(path, fit_judge(problem, torch.Generator().manual_seed(0), torch.device("cpu")))
    load_weights(path, classifier)
    return classifier


def merge(path: Path, line: dict) -> None:
    """Put a line in the place of the one it measures again, or at the end."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    key = ("dim", "prior", "seed", "row", "epochs")
    write_json(path, [k for k in kept if any(k[name] != line[name] for name in key)] + [line])


def generator(problem: Problem, settings: Settings, folder: Path) -> tuple[Debiaser, float]:
    """The biased VAE and the seconds its training took, then or earlier."""
    name = f"vae-{settings.latent_dim}d-{settings.prior}-seed{settings.seed}-epochs{settings.epochs}.safetensors"
    path = folder / name
    model = Debiaser(**settings.debiaser())
    if not path.is_file():
        start = time.perf_counter()
        model.fit_vae(problem.biased.images)
        state = {name: value.contiguous() for name, value in model.vae_.state_dict().items()}
        state["seconds"] = torch.tensor(time.perf_counter() - start)
        write_atomic(path, lambda temporary: save_file(state, temporary))
    state = load_file(path)
    model.biased_, seconds = problem.biased.images, state.pop("seconds").item()
    model.vae_ = VAE((1, 28, 28), settings.latent_dim, components=len(state.get("prior.share", ())))
    model.vae_.load_state_dict(state)
    model.vae_.requires_grad_(False).eval()
    return model, seconds


def study(
    problem: Problem, settings: Settings, classifier: torch.nn.Module, rows: list[str], rng, folder: Path
) -> Iterator[dict]:
    fitted, seconds = generator(problem, settings, folder)

    def verdict(images: torch.Tensor) -> Judgement:
        real = problem.real.float01()
        return judge(images, real, classifier, problem.classes, problem.target, generator=rng)

    prior = "normal" if fitted.vae_.prior is None else "mixture"
    common = {"dim": settings.latent_dim, "prior": prior, "seed": settings.seed, "epochs": settings.epochs}
    before = verdict(fitted.sample_prior(settings.samples).x)
    yield {**common, "row": "untilted", **before.as_dict(), "seconds": seconds}
    fitted_tilt: Debiaser | None = None
    for row in rows:
        per_class, changes = ROWS[row]
        if prior == "mixture" and changes.get("objective") in NEED_NORMAL:
            continue
        model = copy.copy(fitted).set_params(**changes)
        start = time.perf_counter()
        if "sampler" in changes and fitted_tilt is not None:
            # The same tilt, drawn from otherwise.
            model.energy_, model.heldout_gain_ = fitted_tilt.energy_, fitted_tilt.heldout_gain_
        else:
            model.fit_tilt(reference(problem, per_class, settings.seed))
        fitted_tilt = model
        draws = model.sample(settings.samples)
        line = {**common, "row": row, **model.weigh(), "heldout_gain": model.heldout_gain_}
        line |= {"seconds": time.perf_counter() - start, **verdict(draws.x).as_dict()}
        print(json.dumps(line), flush=True)
        yield line


def reference(problem: Problem, per_class: int | None, seed: int) -> torch.Tensor:
    """All reference images, or a balanced few of them."""
    if per_class is None:
        return problem.reference.images
    rng, classes = torch.Generator().manual_seed(1000 + seed), list(problem.classes)
    total = per_class * len(classes)
    rows = draw_shares(problem.reference.labels, classes, problem.target, total, generator=rng)
    return problem.reference.images[rows]


def print_table(results: list[dict]) -> None:
    table = Table(title="Total variation to uniform (each seed; mean), ESS, Fréchet distance, coverage: means")
    for head in ("d", "prior", "row", "TV", "mean TV", "ESS", "Fréchet", "coverage", "seconds"):
        table.add_column(head)
    keys = dict.fromkeys((r["dim"], r["prior"], r["row"]) for r in results)
    for key in sorted(keys, key=lambda k: k[0]):
        lines = [r for r in results if (r["dim"], r["prior"], r["row"]) == key]

        def mean(name: str, lines: list[dict] = lines) -> float:
            return statistics.fmean(line.get(name, 1.0) for line in lines)

        each = " ".join(f"{line['tv']:.3f}" for line in lines)
        cells = [f"{mean('tv'):.3f}", f"{100 * mean('ess'):.1f} %", f"{mean('frechet'):.0f}", f"{mean('coverage'):.3f}"]
        table.add_row(*map(str, key), each, *cells, f"{mean('seconds'):.0f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
