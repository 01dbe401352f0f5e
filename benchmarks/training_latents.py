"""The methods of ``training.py`` on ten-dimensional codes of MNIST, as tilts of N(0, I).

Run ``python benchmarks/training_latents.py``, with ``--methods`` and ``--seeds`` as there; rows go into the same file.

A VAE (perceptron, width 256) is fitted to 30,000 digits for four epochs; posterior draws of 20,000 others, one each,
are the data: half to fit, half to judge. The codes are kept in ``runs/training-latents.safetensors``. Networks, steps
and settings are those of the plane but for the problem's own scale (10→128→128→1; the base is N(0, I)).

The gain is the mean of log p_E(z) − log N(z; 0, I) over held-out codes, in nats: zero is the prior. log Z comes from
10⁶ draws of the prior, its standard error beside it. MMD² compares 2,000 importance-resampled draws with codes.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training import POINTS, SECONDS, add, average, load, train
from training_methods import METHODS, Run, Scale

from latentebm.data.images import load_images
from latentebm.evaluation.quadrature import mmd
from latentebm.files import write_atomic
from latentebm.models.vae import VAE
from latentebm.training.fit_vae import fit_vae

CODES = Path(__file__).parents[1] / "runs" / "training-latents.safetensors"
LATENTS = "MNIST codes, 10-D"
POOL = 1_000_000
PRIOR = Scale(10, 1.0, 1.0, mala=0.1, ula=0.05, walk=0.4, noise=0.3, low=0.15, high=3.0, spread=1.0)


def codes() -> Tensor:
    """Posterior draws (20,000, 10), from the cache or from a VAE fitted now."""
    if not CODES.exists():
        images, g = load_images("mnist").images, torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        vae = VAE(tuple(images.shape[1:]), 10, width=256)
        fit_vae(vae, images[:30_000], epochs=4, generator=g)
        drawn = vae.encode(images[30_000:50_000].float() / 255, generator=g)
        CODES.parent.mkdir(exist_ok=True)
        write_atomic(CODES, lambda p: save_file({"z": drawn.contiguous()}, p))
    return load_file(CODES)["z"]


def measure(dataset: str, method: str, seed: int, steps: int, factor: float = 1.0, stride: float = 1.0) -> dict:
    z = codes()[torch.randperm(2 * POINTS, generator=torch.Generator().manual_seed(seed))]
    g = torch.Generator().manual_seed(1_000 + seed)
    energy, took = train(method, Run(PRIOR, z[:POINTS], steps, g, factor, stride), seed)
    row = {"dataset": dataset, "method": method, "seed": seed, "factor": factor, "stride": stride}
    return row | took | judge(energy, z[POINTS:])


@torch.no_grad()
def judge(energy: nn.Module, test: Tensor) -> dict[str, Any]:
    if not all(bool(p.isfinite().all()) for p in energy.parameters()):
        return {"gain": None, "gain_se": None, "mmd": None, "ess": None}
    g = torch.Generator().manual_seed(7)
    pool = torch.randn(POOL, 10, generator=g)
    log_w = torch.cat([_log_tilt(energy, part) for part in pool.split(8_192)])
    w = (log_w - log_w.max()).exp()
    on_test = _log_tilt(energy, test)
    gain = on_test.mean() - (log_w.logsumexp(0) - math.log(POOL))
    se = ((w.std() / w.mean()).square() / POOL + on_test.var() / len(test)).sqrt()
    drawn = pool[torch.multinomial(w[: 1 << 20], 2_000, replacement=True, generator=g)]
    ess = (w.sum().square() / w.square().sum() / POOL).item()
    return {"gain": gain.item(), "gain_se": se.item(), "mmd": mmd(drawn, test[:2_000], (1.0, 2.0, 4.0)), "ess": ess}


def _log_tilt(energy: nn.Module, z: Tensor) -> Tensor:
    return (z.square().sum(1) / 2 - energy(z)).double()


def table(rows: list[dict]) -> str:
    """Means over seeds, best first."""
    lines = ["| method | seeds | gain | its error | ESS | MMD² | steps | energies / 10⁶ |", "|---" * 8 + "|"]
    columns = ("gain", "gain_se", "ess", "mmd", "steps", "evaluations")
    mean = {n: {c: average(rows, n, c) for c in columns} for n in {r["method"] for r in rows}}
    for n in sorted(mean, key=lambda n: -mean[n]["gain"]):
        m, seeds = mean[n], sum(r["method"] == n for r in rows)
        cells = f"{m['gain']:.3f} | {m['gain_se']:.3f} | {m['ess']:.1%} | {m['mmd']:.4f} | {m['steps']:.0f}"
        lines.append(f"| {n} | {seeds} | {cells} | {m['evaluations'] / 1e6:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="torchebm")
    torch.set_num_threads(1)
    for seed in args.seeds:
        for method in args.methods:
            add(measure, LATENTS, method, seed, SECONDS, 1.0, 1.0)
    print(table([r for r in load()["rows"] if r["dataset"] == LATENTS]))


if __name__ == "__main__":
    main()
