"""Shares of bright faces of a pretrained GAN that nobody of ours trained, by attribute and by few reference items.

The GAN is that of gan-face-generate on PyPI (MIT; DCGAN, 100 → 3 × 64 × 64). A face is bright if the mean grey of its
middle half lies above the 80 % quantile of the model's draws. A reference holds as many bright faces as others, drawn
from the model beside the pool; its labels are not used, and it is seen through 64 grey pixels.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm import Attribute, WrappedModel, expected_shares, tilt_attributes
from latentebm.files import write_atomic
from latentebm.plots import plot_image_grid
from latentebm.sampling.importance.resampling import resample
from latentebm.tilting.few.pursuit import pursue

PACKAGE, POOL, BESIDE, BATCH, FRESH = "gan-face-generate==1.1.1", 2_800, 700, 500, 1_000


def face_gan(folder: Path) -> WrappedModel:
    """The GAN, read from the package's wheel, which is fetched once into the folder."""
    if not (wheels := list(folder.glob("gan_face_generate-1.1.1-*.whl"))):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE], check=True)
        wheels = list(folder.glob("gan_face_generate-1.1.1-*.whl"))
    sys.path.append(str(wheels[0]))
    from gan_face_generate.models import Generator

    weights = io.BytesIO(ZipFile(wheels[0]).read("gan_face_generate/weights.tar"))
    net: nn.Module = Generator(0, 3, 100, 64)
    net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu")["netG_state_dict"])
    return WrappedModel(net.eval().requires_grad_(False), 100, latent_shape=(100, 1, 1), batch_size=BATCH)


def grey_pixels(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x.mean(1, keepdim=True), 8).flatten(1)


def middle(grey: Tensor) -> Tensor:
    return grey.view(-1, 8, 8)[:, 2:6, 2:6].mean((1, 2))


def decoded(model: WrappedModel, file: Path) -> tuple[Tensor, Tensor]:
    """Codes (N, 100) and grey pixels (N, 64) of draws, kept in a file."""
    if not file.is_file():
        codes = torch.randn(POOL + BESIDE, 100, generator=torch.Generator().manual_seed(0))
        found = codes, torch.cat([grey_pixels(model.decode(z)) for z in codes.split(BATCH)])
        write_atomic(file, lambda temporary: torch.save(found, temporary))
    codes, grey = torch.load(file, weights_only=True)
    return codes, grey


def reference(grey: Tensor, bright: Tensor, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Log-weights (POOL,) of the pool by a reference of `each` bright faces and as many others, and the gain (2,)."""
    rng, beside = torch.Generator().manual_seed(seed), torch.arange(POOL, POOL + BESIDE)
    halves = [beside[bright[beside]], beside[~bright[beside]]]
    picks = torch.cat([half[torch.randperm(len(half), generator=rng)[:each]] for half in halves])
    energy = pursue(grey[picks], grey[:POOL], generator=rng)
    return -energy(grey[:POOL]).double(), torch.tensor([energy.gain, energy.gain_se])


def by_reference(grey: Tensor, bright: Tensor, each: int, seed: int) -> dict[str, float]:
    log_weight, gain = reference(grey, bright, each, seed)
    weight = log_weight.softmax(0)
    share, ess = float(weight[bright[:POOL]].sum()), float(1 / weight.square().sum() / POOL)
    return {"share": share, "ess": ess, "gain": float(gain[0]), "gain_se": float(gain[1])}


def by_attribute(model: WrappedModel, cut: float) -> dict[str, float]:
    """The share on fresh draws of a tilt to equal shares, whose function is given."""
    rng = torch.Generator().manual_seed(0)
    bright = Attribute(lambda x: middle(grey_pixels(x)) > cut, {False: 0.5, True: 0.5}, "bright")
    tilt = tilt_attributes(model, bright, pool=FRESH, generator=rng)
    share = expected_shares(tilt, bright, pool=FRESH, generator=rng)["bright"][True]
    weight = (-tilt.energy(torch.randn(FRESH, 100, generator=rng))).double().softmax(0)
    return {"share": share, "ess": float(1 / weight.square().sum() / FRESH)}


def grids(model: WrappedModel, codes: Tensor, log_weight: Tensor, folder: Path) -> None:
    rows = resample(log_weight, 48, generator=torch.Generator().manual_seed(0))
    for name, z in (("before", codes[:48]), ("after", codes[rows])):
        figure = plot_image_grid(model.decode(z) / 2 + 0.5, f"{name} the tilt", columns=12)
        write_atomic(folder / f"faces-{name}.png", figure.savefig)
