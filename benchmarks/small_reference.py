"""Shares of bright faces of a pretrained GAN by few reference items, seen through 64 grey pixels.

    pip install gan-face-generate            # MIT; DCGAN, 100 -> 3 x 64 x 64, nobody of ours trained it
    python benchmarks/small_reference.py     # decodes 25,000 faces once (--draws keeps them), then a minute per row

A face is bright if the mean grey of its middle half lies above the 80 % quantile of the model's draws. The reference
holds as many bright faces as others, drawn from the model beside the pool; its labels are not used.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm import WrappedModel
from latentebm.files import write_atomic
from latentebm.plots import plot_image_grid
from latentebm.sampling.importance.resampling import resample
from latentebm.tilting.pursuit import pursue

POOL, BESIDE, BATCH = 20_000, 5_000, 500


def face_gan() -> WrappedModel:
    spec = importlib.util.find_spec("gan_face_generate")
    if spec is None or spec.origin is None:
        raise SystemExit("gan-face-generate: not found; pip install gan-face-generate")
    from gan_face_generate.models import Generator

    state = torch.load(Path(spec.origin).parent / "weights.tar", weights_only=True, map_location="cpu")
    net: nn.Module = Generator(0, 3, 100, 64)
    net.load_state_dict(state["netG_state_dict"])
    return WrappedModel(net.eval().requires_grad_(False), 100, latent_shape=(100, 1, 1), batch_size=BATCH)


def decoded(model: WrappedModel, file: Path) -> tuple[Tensor, Tensor]:
    """Codes (N, 100) and grey pixels (N, 64) of draws, kept in a file."""
    if file.is_file():
        return tuple(torch.load(file, weights_only=True)[:2])
    rng, codes, grey = torch.Generator().manual_seed(0), [], []
    for _ in range((POOL + BESIDE) // BATCH):
        codes.append(torch.randn(BATCH, 100, generator=rng))
        grey.append(F.adaptive_avg_pool2d(model.decode(codes[-1]).mean(1, keepdim=True), 8).flatten(1))
    found = torch.cat(codes), torch.cat(grey)
    write_atomic(file, lambda temporary: torch.save(found, temporary))
    return found


def middle(grey: Tensor) -> Tensor:
    return grey.view(-1, 8, 8)[:, 2:6, 2:6].mean((1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, nargs="+", default=[100, 50, 25], help="bright faces, and as many others")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=Path, default=Path("faces.pt"), help="where decoded draws are kept")
    parser.add_argument("--figure", type=Path, default=None, help="folder for grids before and after")
    arguments = parser.parse_args()
    model = face_gan()
    codes, grey = decoded(model, arguments.draws)
    bright = middle(grey) > torch.quantile(middle(grey), 0.8)
    for each in arguments.each:
        for seed in range(arguments.seeds):
            weight = row(grey, bright, each, seed)
    if arguments.figure is not None:
        rows = resample(weight.log(), 48, generator=torch.Generator().manual_seed(0))
        for name, z in (("before", codes[:48]), ("after", codes[rows])):
            figure = plot_image_grid(model.decode(z) / 2 + 0.5, f"{name} the tilt", columns=12)
            write_atomic(arguments.figure / f"faces-{name}.png", figure.savefig)


def row(grey: Tensor, bright: Tensor, each: int, seed: int) -> Tensor:
    """Fit to one reference and print its row; the weights (POOL,) of the pool."""
    rng, beside = torch.Generator().manual_seed(seed), torch.arange(POOL, POOL + BESIDE)
    halves = [beside[bright[beside]], beside[~bright[beside]]]
    picks = torch.cat([half[torch.randperm(len(half), generator=rng)[:each]] for half in halves])
    energy = pursue(grey[picks], grey[:POOL], generator=rng)
    weight = (-energy(grey[:POOL])).double().softmax(0)
    share, ess = float(weight[bright[:POOL]].sum()), float(1 / weight.square().sum() / POOL)
    gain = f"gain {energy.gain:.3f} ± {energy.gain_se:.3f}"
    print(f"{each:3} + {each:3}, seed {seed}: share {share:.3f}, ESS {ess:.2f}, {gain}", flush=True)
    return weight


if __name__ == "__main__":
    main()
