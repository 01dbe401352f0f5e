"""A small diffusion model of biased digits: a UNet of diffusers, trained here in twelve minutes of one core."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from latentebm import biased_split, from_diffusers, load_images
from latentebm.data.images import Images
from latentebm.evaluation.judges import Classifier, fit_classifier
from latentebm.files import write_atomic, write_json
from latentebm.models.seen.named_features import named_features
from latentebm.tilting.few.pursuit import pursue

SHARES, CLASSES, SIDE = [0.12, 0.33, 0.28, 0.20, 0.07], range(5), 16
STEPS, BATCH, LR = 2000, 64, 2e-3
FOLDER = Path(__file__).resolve().parent.parent / "notebooks" / "digits-diffusion"


def digits(seed: int) -> tuple[Images, Tensor, Tensor, torch.Generator]:
    """MNIST's training images at 16 × 16, rows of the biased and of the 685-per-class part, and the generator."""
    rng = torch.Generator().manual_seed(seed)
    data = load_images("mnist", resize=SIDE)
    biased, rest = biased_split(data.labels, CLASSES, SHARES, generator=rng)
    return data, biased, rest, rng


def untrained() -> UNet2DModel:
    """A network of 0.9 million weights, three resolutions, no attention."""
    down, up = ("DownBlock2D",) * 3, ("UpBlock2D",) * 3
    known = {"layers_per_block": 1, "norm_num_groups": 8, "add_attention": False}
    return UNet2DModel(SIDE, 1, 1, block_out_channels=(32, 48, 64), down_block_types=down, up_block_types=up, **known)


def ddim() -> DDIMScheduler:
    """A cosine schedule whose last step is noise alone, as the starting noise is."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def train(folder: Path, seed: int = 0, steps: int = STEPS) -> float:
    """Train on the biased digits and save in diffusers' own form, weights in 16 bits; the seconds of CPU it took."""
    data, biased, _, rng = digits(seed)
    images = 2 * data[biased].float01() - 1
    torch.manual_seed(seed)
    net, scheduler, start = untrained(), ddim(), time.process_time()
    ema = EMAModel(net.parameters(), decay=0.995)
    optimizer = torch.optim.AdamW(net.parameters(), LR)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.05)
    for _ in track(range(steps), description="training the diffusion model"):
        x = images[torch.randint(len(images), (BATCH,), generator=rng)]
        noise, t = torch.randn(x.shape, generator=rng), torch.randint(1000, (BATCH,), generator=rng)
        wanted = scheduler.get_velocity(x, noise, t)
        loss = F.mse_loss(net(scheduler.add_noise(x, noise, t), t).sample, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        ema.step(net.parameters())
    ema.copy_to(net.parameters())
    net.half().save_pretrained(folder, variant="fp16")
    scheduler.save_pretrained(folder)
    seconds = time.process_time() - start
    write_json(folder / "training.json", {"seed": seed, "steps": steps, "cpu_seconds": round(seconds)})
    return seconds


def load(folder: Path) -> tuple[UNet2DModel, DDIMScheduler]:
    """The network in 32 bits and its scheduler, from a folder that `train` wrote."""
    net = UNet2DModel.from_pretrained(folder, variant="fp16", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    return net.eval(), DDIMScheduler.from_pretrained(folder)


def pool(folder: Path, file: Path, count: int, steps: int, seed: int = 1) -> Tensor:
    """Untilted draws (N, 1, 16, 16) in [−1, 1] by DDIM, kept in a file."""
    if not file.is_file():
        model, rng = from_diffusers(*load(folder), steps=steps, batch_size=128), torch.Generator().manual_seed(seed)
        parts = [model.decode(torch.randn(128, SIDE**2, generator=rng)) for _ in track(range(-(-count // 128)))]
        found = torch.cat(parts)[:count]
        write_atomic(file, lambda temporary: torch.save(found, temporary))
    return torch.load(file, weights_only=True)


def classifiers(seed: int) -> tuple[Classifier, Classifier]:
    """The referee and the user's own, from disjoint halves of the images."""
    data, _, _, rng = digits(seed)
    torch.manual_seed(seed)
    halves = torch.randperm(len(data), generator=rng).chunk(2)
    referee, own = (fit_classifier(data[rows], epochs=2, generator=rng) for rows in halves)
    return referee, own


def features(name: str, draws: Tensor, own: Classifier) -> Callable[[Tensor], Tensor]:
    """What the reference is seen through: data in [−1, 1] to (N, F)."""
    if name == "class probabilities":
        return lambda x: own.probabilities(own.embed(x / 2 + 0.5))[:, :5]
    return named_features(name, draws)


@torch.no_grad()
def by_reference(
    x: Tensor, name: str, seed: int, judges: tuple[Classifier, Classifier], each: int = 25
) -> dict[str, Any]:
    """Fit on half of the draws to `each` images of every class, without labels; shares of the other half, weighted."""
    referee, own = judges
    data, _, rest, _ = digits(0)
    rng, labels = torch.Generator().manual_seed(seed), data.labels[rest]
    rows = [rest[labels == k] for k in CLASSES]
    picks = torch.cat([r[torch.randperm(len(r), generator=rng)[:each]] for r in rows])
    fit, judged = x[: len(x) // 2], x[len(x) // 2 :]
    seen = features(name, fit[:1000], own)
    energy = pursue(seen(2 * data[picks].float01() - 1), seen(fit), generator=rng)
    weight = (-energy(seen(judged))).double().softmax(0)
    digit = referee.probabilities(referee.embed(judged / 2 + 0.5)).argmax(1)
    return {**tv_of(weight, digit), "ess": float(1 / weight.square().sum() / len(weight)), "weight": weight}


def tv_of(weight: Tensor, digit: Tensor) -> dict[str, Any]:
    """Total variation of the weighted shares of the five digits from equal ones, and all others."""
    shares = [float(weight[digit == k].sum()) for k in CLASSES]
    other = max(0.0, 1 - sum(shares))
    return {"tv": 0.5 * (sum(abs(s - 0.2) for s in shares) + other), "shares": shares, "other": other}
