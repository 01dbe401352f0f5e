"""The latent tilt beside every alternative at equal budget, over dimensions, reference sizes and seeds.

    python benchmarks/generators.py [--dims 2 10] [--sizes 685 10 100 25] [--seeds 0 1 2 3 4] [--methods …]
    python benchmarks/generators.py --table

MNIST digits 0-4, 18,353 biased images in the shares .12/.33/.28/.20/.07, target uniform. The biased VAE is trained for
`--epochs` passes; no method takes more VAE gradient steps than that took. Each finished row is merged into the JSON
file, and rows that are there already are skipped, so that the work can be stopped, resumed and shared by processes.
The evaluation classifier and the VAEs are kept in the run folder; the three classifiers made differently whose mean
shares are *TV, panel* are those of longtail.py, in its folder. Seconds are wall-clock and mean little where processes
share a machine; the budget is measured in VAE steps.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from longtail import judges
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentebm.choices import kl_weight
from latentebm.data.imbalance import draw_shares
from latentebm.debiaser import Debiaser
from latentebm.evaluation.baselines import BASELINES, Task
from latentebm.evaluation.fidelity import copied_share, frechet_distance, neighbourhoods
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.panel import Panel
from latentebm.evaluation.panel_shares import panel_shares
from latentebm.evaluation.shares import class_shares, confusion_rates, corrected_shares, kl_to_target, total_variation
from latentebm.files import write_atomic, write_json
from latentebm.models.saving import load_weights, save_weights
from latentebm.models.vae import VAE
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.settings.fields import Settings
from latentebm.workflow.judge import fit_judge
from latentebm.workflow.problem import pose

TILT = "latent tilt, likelihood"
METHODS = ["untilted", TILT, "fine-tuned", "reference only", "likelihood-free weights", "conditional (oracle)"]
METHODS += ["oversampled", "importance-weighted"]
SIZELESS = ("untilted", "conditional (oracle)")  # know nothing of the reference
POOL = 200_000  # prior draws the tilt's 10,000 are resampled from
DRAWS = 10_000


@dataclass(frozen=True)
class World:
    """What the methods of one dimension and seed share: data, biased VAE and seconds of its training."""

    biased: Tensor
    labels: Tensor
    reference: Tensor
    reference_labels: Tensor
    real: Tensor
    vae: VAE
    kl_weight: float
    seconds: float


@dataclass(frozen=True)
class Judge:
    """The evaluation classifier, its confusions on test images, and three more of different make."""

    classifier: Classifier
    confusion: Tensor
    panel: Panel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--sizes", type=int, nargs="+", default=[685, 10, 100, 25])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--folder", type=Path, default=Path("runs/generators"))
    parser.add_argument("--table", action="store_true", help="print the table of the rows there are, and stop")
    arguments = parser.parse_args()
    if not arguments.table:
        work(arguments)
    print(table(read(arguments.json)))


def work(arguments: argparse.Namespace) -> None:
    judge = fit_or_load_judge(arguments.folder)
    for method in arguments.methods:
        for size in arguments.sizes if method not in SIZELESS else [0]:
            for seed in arguments.seeds:
                for dim in arguments.dims:
                    key = {"method": method, "size": size, "seed": seed, "dim": dim, "epochs": arguments.epochs}
                    if not any(key.items() <= row.items() for row in read(arguments.json)):
                        row = {
                            **key,
                            **measure(method, size, world(dim, seed, arguments.epochs, arguments.folder), key, judge),
                        }
                        merge(arguments.json, row)
                        print(json.dumps(row), flush=True)


def measure(method: str, size: int, w: World, key: dict, judge: Judge) -> dict:
    """Fit one method, draw from it and judge the draws."""
    start = time.perf_counter()
    reference = few(w, size, key["seed"])
    draws, steps = (tilt if method == TILT else baseline)(method, reference, w, key)
    seconds = time.perf_counter() - start
    features, real = judge.classifier.embed(draws.x), judge.classifier.embed(w.real)
    seen = judge.classifier.embed(reference.float() / 255)
    read = judge.classifier.probabilities(features).argmax(1)
    full, target, classes = class_shares(read, range(10)), [0.2] * 5, range(5)
    corrected = corrected_shares(full, judge.confusion)
    around = neighbourhoods(features, real)
    names, by_panel = list(judge.panel.strangers), judge.panel.read(draws.x)
    found = panel_shares(*by_panel, names, list(classes), target, generator=stream(key["seed"], 10))
    return {
        "tv": total_variation(full[:5], target),
        "tv_corrected": total_variation([corrected[k] for k in classes], target),
        "tv_panel": found.tv,
        "tv_panel_interval": found.tv_interval,
        "kl": kl_to_target(full[:5], target, len(read)),
        "shares": full,
        "frechet": frechet_distance(features, real),
        "precision": around.precision,
        "recall": around.recall,
        "density": around.density,
        "coverage": around.coverage,
        "copied": copied_share(features, seen, real, generator=torch.Generator().manual_seed(0)),
        "ess": draws.diagnostics.get("ess"),
        "duplicates": draws.diagnostics.get("duplicates", 0.0),
        "steps": steps,
        "seconds": seconds,
        "seconds_biased_vae": w.seconds,
    }


def tilt(method: str, reference: Tensor, w: World, key: dict) -> tuple[Draws, int]:
    model = Debiaser(latent_dim=key["dim"], seed=key["seed"], pool=POOL)
    model.vae_, model.biased_ = w.vae, w.biased
    return model.fit_tilt(reference).sample(DRAWS), 0


def baseline(method: str, reference: Tensor, w: World, key: dict) -> tuple[Draws, int]:
    task = Task(
        vae=w.vae,
        biased=w.biased,
        reference=reference,
        steps=key["epochs"] * (len(w.biased) // 256),
        kl_weight=w.kl_weight,
        labels=w.labels,
        target=[0.2] * 5,
        seed=key["seed"],
    )
    fitted = BASELINES[method](task)
    return fitted.sample(DRAWS, generator=torch.Generator().manual_seed(1000 + key["seed"])), fitted.steps


def few(w: World, size: int, seed: int) -> Tensor:
    """A balanced few of the reference images; all of them for 685 per class, or where the size doesn't matter."""
    if size in (0, 685):
        return w.reference
    rng = torch.Generator().manual_seed(1000 + seed)
    return w.reference[draw_shares(w.reference_labels, range(5), [0.2] * 5, 5 * size, generator=rng)]


@functools.lru_cache(maxsize=10)
def world(dim: int, seed: int, epochs: int, folder: Path) -> World:
    problem = pose(Settings(latent_dim=dim, seed=seed), torch.Generator().manual_seed(seed))
    path = folder / f"vae-{dim}d-seed{seed}-epochs{epochs}.safetensors"
    if not path.exists():
        train(path, problem.biased.images, dim, seed, epochs)
    state = load_file(path)
    seconds, weight = state.pop("seconds").item(), state.pop("kl_weight").item()
    vae = VAE((1, 28, 28), dim, components=len(state.get("prior.share", ())))
    vae.load_state_dict(state)
    return World(
        biased=problem.biased.images,
        labels=problem.biased.labels,
        reference=problem.reference.images,
        reference_labels=problem.reference.labels,
        real=problem.real.float01(),
        vae=vae.requires_grad_(False).eval(),
        kl_weight=weight,
        seconds=seconds,
    )


def train(path: Path, images: Tensor, dim: int, seed: int, epochs: int) -> None:
    """Train the biased VAE and keep it, the seconds it took, and its KL weight, which every VAE here then has."""
    start = time.perf_counter()
    model = Debiaser(latent_dim=dim, seed=seed, epochs=epochs).fit_vae(images)
    state = {name: value.contiguous() for name, value in model.vae_.state_dict().items()}
    state["seconds"] = torch.tensor(time.perf_counter() - start)
    state["kl_weight"] = torch.tensor(kl_weight(model, "biased", model.sources_.dispersion))
    write_atomic(path, lambda temporary: save_file(state, temporary))


def fit_or_load_judge(folder: Path) -> Judge:
    problem, path = pose(Settings(), torch.Generator().manual_seed(0)), folder / "judge.safetensors"
    if path.exists():
        classifier = Classifier((1, 28, 28), 10).eval()
        load_weights(path, classifier)
    else:
        classifier = fit_judge(problem, torch.Generator().manual_seed(0), torch.device("cpu"))
        save_weights(path, classifier)
    read = classifier.probabilities(classifier.embed(problem.judge_test.float01())).argmax(1)
    panel = judges("mnist:50", None, "cpu", Path("runs/longtail"))
    return Judge(classifier, confusion_rates(read, problem.judge_test.labels, 10), panel)


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def merge(path: Path, row: dict) -> None:
    """Add a row to the file while no other process does."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = [*read(path), row]
        write_json(
            path, sorted(rows, key=lambda r: (r["epochs"], r["dim"], -r["size"], METHODS.index(r["method"]), r["seed"]))
        )


def table(rows: list[dict]) -> str:
    """Markdown: one line for each dimension, size and method; mean ± sd over seeds."""
    head = "| d | per class | method | TV | TV, panel | TV corrected | Fréchet | coverage | ESS | VAE steps | seeds |"
    lines = [head, "|---" * 11 + "|"]
    for dim, size, method in dict.fromkeys((r["dim"], r["size"], r["method"]) for r in rows):
        group = [r for r in rows if (r["dim"], r["size"], r["method"]) == (dim, size, method)]
        cells = [str(dim), str(size or "–"), method]
        cells += [
            spread(group, name, digits)
            for name, digits in (("tv", 3), ("tv_panel", 3), ("tv_corrected", 3), ("frechet", 0))
        ]
        cells += [
            spread(group, "coverage", 3),
            spread(group, "ess", 0, 100),
            spread(group, "steps", 0),
            str(len(group)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(group: list[dict], name: str, digits: int, factor: float = 1) -> str:
    values = [factor * r[name] for r in group if r.get(name) is not None]  # earlier rows lack the panel
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
