"""Flows baked from fitted MNIST tilts: what share of their draws is effective, and what fitting and drawing cost.

Run ``python benchmarks/bake.py`` from the repository (some minutes on an idle core); prints one row per code length and
writes them to --out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from latentebm import SNIS, Debiaser, agreement, biased_split, load_images
from latentebm.files import write_json
from latentebm.tilting.bake import BakeRecipe, bake

PROPORTIONS = [0.12, 0.33, 0.28, 0.20, 0.07]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def measure(dim: int, epochs: int) -> dict[str, Any]:
    """One fitted tilt, its flow, and how both are drawn; seconds are of processor time."""
    images = load_images("mnist")
    biased, reference = biased_split(images.labels, range(5), PROPORTIONS, generator=seeded(0))
    model = Debiaser(latent_dim=dim, prior="normal", epochs=epochs, device="cpu")
    tilt = model.fit(images[biased].images, images[reference].images).tilt()
    start = time.process_time()
    baked = bake(tilt, recipe=BakeRecipe(), generator=seeded(1))
    fitted = time.process_time() - start
    found, start = baked.weigh(generator=seeded(2)), time.process_time()
    drawn = baked.draw(tilt, 10_000, generator=seeded(3))
    seconds, start = time.process_time() - start, time.process_time()
    baked.sample(10_000, generator=seeded(3))
    plain, start = time.process_time() - start, time.process_time()
    exact = SNIS(pool=200_000).draw(tilt, 10_000, generator=seeded(4))
    snis_seconds = time.process_time() - start
    compared = agreement(drawn.latent[:2_000], exact.latent[:2_000], generator=seeded(5))
    row = {"dim": dim, "ess of the base": exact.diagnostics["ess"], "ess": found["ess"], "pareto_k": found["pareto_k"]}
    row |= {"log_z": found["log_z"], "log_z of snis": exact.diagnostics["log_z"], "steps": baked.log_.steps}
    row |= {"fit_s": fitted, "draw_s": seconds, "sample_s": plain, "snis_s": snis_seconds}
    return row | compared._asdict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "bake.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for dim in options.dims:
        rows.append(measure(dim, options.epochs))
        print(rows[-1], flush=True)
        write_json(options.out, rows)


if __name__ == "__main__":
    main()
