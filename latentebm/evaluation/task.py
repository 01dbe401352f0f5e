"""What a method that balances a model is given, and what it hands back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.models.vae import VAE
from latentebm.progress import Track, silent
from latentebm.rng import seeded
from latentebm.sampling import Draws
from latentebm.training.fit import FitResult
from latentebm.training.fit_vae import fit_vae

__all__ = ["Sampled", "Task"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every method is given."""

    vae: VAE  # trained on the biased images; never changed
    biased: Tensor  # its images, (N, C, H, W), uint8
    reference: Tensor  # the unbiased images, (M, C, H, W), uint8, at least five
    steps: int  # most VAE gradient steps; those that trained `vae`
    batch_size: int = 256
    lr: float = 4e-3  # peak learning rate of a VAE trained from scratch
    kl_weight: float = 1.0  # of the ELBO's KL term
    precision: str = "auto"  # as in `fit_vae`
    pool: int = 50_000  # draws that the likelihood-free weights resample
    labels: Tensor | None = None  # class of each biased image, (N,), from 0; for the oracle only
    target: Sequence[float] = ()  # wanted share of each class; for the oracle only
    seed: int = 0
    track: Track = silent

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "pool"):
            check_int(name, getattr(self, name))
        if len(self.reference) < 5:
            fix = "pass more: a fifth of them is held out"
            raise fail("reference", "at least 5 images", len(self.reference), fix)

    def generator(self) -> torch.Generator:
        """A fresh stream from the seed."""
        return torch.Generator().manual_seed(self.seed)

    def fit(self, vae: VAE, images: Tensor, *, lr: float | None = None, **settings: Tensor | None) -> FitResult:
        """Fit a VAE within the budget, by batches that spend it in whole passes."""
        epochs = min(self.steps, math.ceil(self.steps * self.batch_size / len(images)))
        return fit_vae(
            vae,
            images,
            epochs=epochs,
            batch_size=max(1, len(images) // (self.steps // epochs)),
            lr=lr or self.lr,
            kl_weight=self.kl_weight,
            precision=self.precision,
            generator=self.generator(),
            track=self.track,
            **settings,  # type: ignore[arg-type]
        )

    def fresh(self, kind: type[VAE] = VAE, **more: Any) -> VAE:
        """An untrained VAE of the biased one's shape, on its device; its first weights follow from the seed."""
        with seeded(self.seed):
            return kind(**self.vae.config, **more).to(next(self.vae.parameters()).device)


@dataclass(frozen=True)
class Sampled:
    """A fitted method: how it draws n images, and how many VAE gradient steps it took."""

    draw: Callable[[int, torch.Generator], Draws]
    steps: int = 0

    def sample(self, n: int, *, generator: torch.Generator) -> Draws:
        """Draw `n` images."""
        return self.draw(check_int("n", n), generator)
