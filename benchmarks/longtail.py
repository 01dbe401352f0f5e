"""Ten classes with a long tail: the tilt, with and without learning from the reference, beside every alternative.

    python benchmarks/longtail.py [--data mnist:50 mnist:100 fashion-mnist:50] [--sizes 25 10 100] [--seeds 0 1 2 3 4]
                                  [--methods …] [--device cpu] [--jobs 1] [--json FILE] [--data-root FOLDER]

Each finished row is appended to the JSON lines file at once, and rows that are there already are skipped, so that the
work can be stopped and resumed. `--jobs` processes share the work, seed after seed: methods that know nothing of the
reference, and the biased VAE that others start from, are fitted once for all sizes. Every set of draws is judged by
three classifiers of real images made differently (TV is of their mean shares) and by one that also knows a VAE's
reconstructions; they are trained once and kept. Fashion-MNIST needs a network or its files in a folder that
`--data-root` names (``FashionMNIST/raw``). Seconds mean little where processes share a machine. The tables are those
that longtail_tables.py prints.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import functools
import itertools
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
from longtail_tables import DATA, read, tables
from longtail_tables import METHODS as SIDE_BY_SIDE
from torch import Tensor

from latentebm.choices import kl_weight
from latentebm.data.images import Images
from latentebm.debiaser import Debiaser
from latentebm.evaluation.baselines import BASELINES, Sampled, Task
from latentebm.evaluation.fidelity import copied_share, frechet_distance
from latentebm.evaluation.fixed_features import fixed_features
from latentebm.evaluation.judges import Classifier, fit_classifier
from latentebm.evaluation.panel import Panel, fit_panel, large_judge, linear_judge
from latentebm.evaluation.panel_shares import panel_shares
from latentebm.models.saving import load_weights, save_weights
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.settings.fields import Settings
from latentebm.training.fit_vae import bf16_pays
from latentebm.vae_sources import PULL
from latentebm.workflow.problem import Problem, pose

# What each row of ours sets beside the default.
NORMAL: dict[str, Any] = {"learn_from": "both", "prior": "normal", "sharpen": 0}
OURS: dict[str, dict[str, Any]] = {
    "both, then the tilt": {"learn_from": "both"},
    "frozen, then the tilt": {"learn_from": "biased"},
    "both, without a critic": {"learn_from": "both", "sharpen": 0},
    "both, with a critic": {"learn_from": "both", "sharpen": 0.5},  # of MNIST; Fashion-MNIST has one by default
    "frozen, normal prior": {"learn_from": "biased", "prior": "normal"},
    "both, normal prior": NORMAL,
    "both, normal prior, KL weight 0.5": NORMAL | {"kl_weight": 0.5},
    "both, normal prior, affine, KL weight 0.5": NORMAL | {"kl_weight": 0.5, "augment": "affine"},
    "both, normal prior, slight, KL weight 0.5": NORMAL | {"kl_weight": 0.5, "augment": "slight"},
    "both, normal prior, KL weight 1.5": NORMAL | {"kl_weight": 1.5},
    "both, normal prior, affine, KL weight 1.5": NORMAL | {"kl_weight": 1.5, "augment": "affine"},
    "both, normal prior, slight, KL weight 1.5": NORMAL | {"kl_weight": 1.5, "augment": "slight"},
    "both, then the tilt (conv)": {"learn_from": "both", "network": "conv"},
    **{
        f"both, reference share {share}": {"learn_from": "both", "reference_share": share}
        for share in (0.1, 0.25, 0.75)
    },
}
CRITIC = ", with a critic"  # as ours has by default on Fashion-MNIST
OTHERS = ["oversampled", "importance-weighted", "fine-tuned", "reference only", "likelihood-free weights", "untilted"]
ORACLE = "conditional (oracle)"  # is told the classes of the biased images
SIZELESS = ("untilted", ORACLE)  # know nothing of the reference
PLAIN = ", normal prior"  # and a KL weight of 1.5: what a method without a learned prior was best with
CONTROLS = ["real images held out", "the same, reconstructed"]
METHODS = [*OURS, *OTHERS, ORACLE, *CONTROLS, *(other + PLAIN for other in OTHERS), *(o + CRITIC for o in OTHERS[:4])]
DRAWS, POOL = 5_000, 200_000
ANY = 25  # reference images per class, where their number changes nothing
MAKES = {"small convnet": Classifier, "large convnet": large_judge, "linear model": linear_judge, "insider": Classifier}
KEY = ("data", "size", "method", "seed", "dim", "epochs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), help="name:ratio")
    parser.add_argument("--data-root", default=None, help="folder of Fashion-MNIST's files")
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 10, 100], help="reference images per class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    methods = {"choices": METHODS, "default": list(SIDE_BY_SIDE), "metavar": "METHOD"}
    parser.add_argument("--methods", nargs="+", **methods, help=f"among {', '.join(METHODS)}")
    parser.add_argument("--dim", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--folder", type=Path, default=Path("runs/longtail"), help="where the judges are kept")
    arguments = parser.parse_args()
    work(arguments)
    print(tables(read(arguments.json)))


def work(arguments: argparse.Namespace) -> None:
    """Deal the missing cells out to processes, all that share a VAE to one of them at a time."""
    done = [tuple(row[name] for name in KEY) for row in read(arguments.json)]
    groups = []
    for seed, data, methods in itertools.product(arguments.seeds, arguments.data, _groups(arguments.methods)):
        cells = itertools.product(methods, arguments.sizes)
        keys = [(data, size, method, seed, arguments.dim, arguments.epochs) for method, size in cells]
        groups.append([dict(zip(KEY, key, strict=True)) for key in keys if key not in done])
    known = (arguments.device, arguments.data_root, arguments.folder)
    jobs = [(group, *known, arguments.json) for group in groups if group]
    for data in dict.fromkeys(arguments.data):
        judges(data, arguments.data_root, arguments.device, arguments.folder)
    if arguments.jobs == 1:
        for job in jobs:
            run(job)
        return
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for _ in pool.imap_unordered(run, jobs, chunksize=1):
            pass


def _groups(methods: list[str]) -> list[list[str]]:
    """Methods that share a VAE of the biased images stay together, those of one prior after those of the other."""
    alone = [[method] for method in methods if method in OURS and not _frozen(method)]
    rest = sorted((method for method in methods if [method] not in alone), key=_prior)
    return [*alone, rest] if rest else alone


def _frozen(method: str) -> bool:
    return OURS.get(method, {}).get("learn_from") == "biased"


def _prior(method: str) -> str:
    """Which prior the biased VAE that a method starts from has."""
    return "normal" if method.endswith(PLAIN) else "auto"


def run(job: tuple[list[dict], str, str | None, Path, Path]) -> None:
    """Measure every method of one group, and write each row once it is there."""
    cells, device, root, folder, path = job
    torch.set_num_threads(1)
    for cell in cells:
        start = time.perf_counter()
        row = {**cell, **measure(cell, device, root, folder), "seconds": time.perf_counter() - start, "device": device}
        with path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(row) + "\n")
        print(json.dumps({name: row[name] for name in (*KEY, "tv", "copied")}), flush=True)


def measure(cell: dict, device: str, root: str | None, folder: Path) -> dict:
    """Fit one method, draw from it, and judge the draws."""
    problem, panel = posed(cell["data"], cell["size"], cell["seed"], root), judges(cell["data"], root, device, folder)
    model, draws = fitted(cell, problem, device, root)
    real = problem.real.float01().to(device)[:DRAWS]
    rng = stream(cell["seed"], 10)
    x = draws.x.to(device)
    seen, meant = panel.read(x)
    found = panel_shares(seen, meant, list(panel.strangers), problem.classes, problem.target, generator=rng)
    embed = panel.strangers["small convnet"].embed
    features, held, own = embed(x), embed(real), embed(problem.reference.float01().to(device))
    sources = model.sources_ if model is not None else None
    return {
        "tv": found.tv,
        "tv_interval": found.tv_interval,
        "tv_each": {name: judge["tv"] for name, judge in found.each.items()},
        "tv_meant": found.meant["tv"],
        "shares": found.shares,
        "disagreed": found.disagreed,
        "frechet": frechet_distance(features, held),
        "frechet_fixed": frechet_distance(fixed_features(x), fixed_features(real)),
        "copied": copied_share(features, own, held, generator=torch.Generator().manual_seed(0)),
        "ess": draws.diagnostics.get("ess"),
        "held_out": None if sources is None or sources.held_out is None else float(model.vae_log_.best),  # nats
        "learned": None if sources is None else {k: v for k, v in sources.as_dict().items() if k != "why"},
    }


def fitted(cell: dict, problem: Problem, device: str, root: str | None) -> tuple[Debiaser | None, Draws]:
    """The draws of a method, and the debiaser they are from where there is one."""
    method, sizes = cell["method"], {"latent_dim": cell["dim"], "seed": cell["seed"], "epochs": cell["epochs"]}
    biased, reference = problem.biased.images, problem.reference.images
    if method in OURS and not _frozen(method):
        model = Debiaser(**sizes, pool=POOL, device=device, **OURS[method]).fit(biased, reference)
        return model, model.sample(DRAWS)
    if method == CONTROLS[0]:
        return None, Draws(unseen(problem, device), torch.zeros(0), torch.zeros(0), {})
    start = (cell["data"], cell["seed"], cell["dim"], cell["epochs"], device, root)
    if method in OURS:
        model = copy.copy(biased_vae(*start, _prior(method))).fit_tilt(reference)
        return model, model.sample(DRAWS)
    if method == CONTROLS[1]:
        model = biased_vae(*start, _prior(method))
        return model, Draws(reconstructed(model, unseen(problem, device), device), torch.zeros(0), torch.zeros(0), {})
    sampled = baseline(*start, method, None if method.removesuffix(PLAIN) in SIZELESS else cell["size"])
    return None, sampled.sample(DRAWS, generator=torch.Generator().manual_seed(1000 + cell["seed"]))


def unseen(problem: Problem, device: str) -> Tensor:
    """Held-out real images, other ones than those that draws are measured against."""
    return problem.real.float01().to(device)[DRAWS:]


@functools.lru_cache(maxsize=2)
def baseline(
    data: str, seed: int, dim: int, epochs: int, device: str, root: str | None, method: str, size: int | None
) -> Sampled:
    """A method of `latentebm.evaluation.baselines`, fitted; one that knows nothing of a reference needs no size."""
    problem = posed(data, size or ANY, seed, root)
    model, biased = biased_vae(data, seed, dim, epochs, device, root, _prior(method)), problem.biased
    task = Task(
        vae=model.vae_,
        biased=biased.images,
        reference=problem.reference.images,
        steps=epochs * (len(biased) // 256),
        kl_weight=kl_weight(model, "biased", model.sources_.dispersion),
        pull=PULL if method.endswith(CRITIC) else 0.0,
        labels=biased.labels,
        target=problem.target,
        seed=seed,
    )
    return BASELINES[method.removesuffix(PLAIN).removesuffix(CRITIC)](task)


@functools.lru_cache(maxsize=4)
def posed(data: str, size: int, seed: int, root: str | None) -> Problem:
    """The biased and the reference set of a seed."""
    name, _, ratio = data.partition(":")
    tail = {"classes": "all", "proportions": f"long-tail:{ratio}", "reference_per_class": size, "seed": seed}
    settings = Settings(data=name, data_root=None if name == "mnist" else root, **tail)
    return pose(settings, torch.Generator().manual_seed(seed))


@functools.lru_cache(maxsize=1)
def biased_vae(data: str, seed: int, dim: int, epochs: int, device: str, root: str | None, prior: str) -> Debiaser:
    """A VAE of the biased images alone, which are the same whatever the size of the reference."""
    sizes = {"latent_dim": dim, "seed": seed, "epochs": epochs, "device": device}
    model = Debiaser(**sizes, pool=POOL, learn_from="biased", prior=prior)
    return model.fit_vae(posed(data, ANY, seed, root).biased.images)


@functools.lru_cache(maxsize=2)
def judges(data: str, root: str | None, device: str, folder: Path) -> Panel:
    """The panel of a dataset, the same for every cell; it is trained once and kept in the folder.

    What it knows of reconstructions is those of a VAE of all training images, so that it favours no method.
    """
    name = data.partition(":")[0]
    train, rng = posed(data, ANY, 0, root).judge_train, stream(0, 9)
    paths = {kind: folder / f"{name}-{kind.replace(' ', '-')}.safetensors" for kind in MAKES}
    if not all(path.exists() for path in paths.values()):
        train_judges(train, device, rng, paths)
    known = {kind: make((1, 28, 28), len(train.class_names)) for kind, make in MAKES.items()}
    for kind, judge in known.items():
        load_weights(paths[kind], judge)
        judge.to(device).eval()
    insider = known.pop("insider")
    return Panel(known, insider)


def train_judges(train: Images, device: str, rng: torch.Generator, paths: dict[str, Path]) -> None:
    model = Debiaser(latent_dim=10, seed=0, epochs=4, device=device).fit_vae(train.images)
    fast = bf16_pays(torch.device(device))
    small = fit_classifier(train, epochs=4, generator=rng, device=device, autocast=fast)
    panel = fit_panel(small, train, lambda x: reconstructed(model, x, device), seen=60_000, generator=rng)
    test = {**panel.strangers, "insider": panel.insider}
    for kind, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(path, test[kind])


def reconstructed(model: Debiaser, x: Tensor, device: str) -> Tensor:
    return model.vae_.decode(model.vae_.encode(x.to(device)))


if __name__ == "__main__":
    main()
