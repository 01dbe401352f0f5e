"""Learned samplers on distributions whose likelihood is exact: what energy and sampler reach with each entropy.

Run ``python benchmarks/amortized.py`` for every distribution and entropy at the default settings (half a minute per
run on an idle core), or name parts: ``--datasets "two moons" --entropies variational --seeds 0 1``. Rows go to --json
one by one and replace their like.

The energy is that of benchmarks/training.py: a perceptron 2→128→128→1 of 6x plus |x|²/8, which is integrable whatever
the perceptron does. The sampler's codes have two entries, four for activation scales. Excess is the mean of
log p(x) − log p_E(x) over 10,000 test points, in nats; MMD² compares 2,000 draws with 2,000 test points: exact draws of
the energy's distribution, and the sampler's own.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import torch
from training import POINTS, judge
from training_methods import PLANE, Energy

from latentebm.data.toy import TOYS
from latentebm.ebm.learned_sampler import AmortizedRecipe, fit_amortized
from latentebm.ebm.sampler_loss import Entropy
from latentebm.evaluation.quadrature import mmd
from latentebm.files import write_json
from latentebm.models.sampler_net import SamplerNet

RESULTS = Path(__file__).parent / "amortized.json"
KEY = ("dataset", "entropy", "seed", "settings")


def sampler(entropy: str) -> SamplerNet:
    if entropy == "scales":
        return SamplerNet(4, 2, noise=0.1, batch_norm=True)
    return SamplerNet(2, 2, noise=0.1, straight=1.5)


def measure(dataset: str, entropy: str, seed: int, **settings: Any) -> dict[str, Any]:
    law, g = TOYS[dataset], torch.Generator().manual_seed(1_000 + seed)
    data, test = law.sample(POINTS, generator=g), law.sample(POINTS, generator=g)
    torch.manual_seed(seed)
    energy, source, start = Energy(PLANE), sampler(entropy), time.process_time()
    steps = fit_amortized(energy, source, data, AmortizedRecipe(entropy=entropy, **settings), generator=g).steps
    seconds = time.process_time() - start
    drawn = source.sample(2_000, generator=g).detach()
    row = {"dataset": dataset, "entropy": entropy, "seed": seed, "settings": settings, "steps": steps}
    return row | {"seconds": seconds, **judge(energy, law, test), "sampler_mmd": mmd(drawn, test[:2_000])}


def merge(path: Path, row: dict[str, Any]) -> None:
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    write_json(path, [k for k in kept if any(k[name] != row[name] for name in KEY)] + [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=list(TOYS), choices=list(TOYS))
    parser.add_argument("--entropies", nargs="+", default=get_args(Entropy), choices=get_args(Entropy))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of AmortizedRecipe's other settings")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    print("| dataset | entropy | seed | excess | MMD² | sampler's MMD² | CPU s |\n" + "|---" * 7 + "|", flush=True)
    for dataset in args.datasets:
        for entropy in args.entropies:
            for seed in args.seeds:
                row = measure(dataset, entropy, seed, **args.settings)
                merge(args.json, row)
                cells = f"{row['excess']:.3f} | {row['mmd']:.4f} | {row['sampler_mmd']:.4f} | {row['seconds']:.0f}"
                print(f"| {dataset} | {entropy} | {seed} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
