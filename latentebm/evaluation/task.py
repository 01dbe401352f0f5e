"""What a method that balances a generator is given, and what it hands back."""

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
from latentebm.sampling import Draws
from latentebm.training.fit import FitResult
from latentebm.training.fit_vae import fit_vae

__all__ = ["Sampled", "Task"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every method is given.

    Attributes:
        vae: trained on the biased images; never changed.
        biased: its images, (N, C, H, W), uint8.
        reference: the unbiased images, (M, C, H, W), uint8.
        steps: most VAE gradient steps; those that trained `vae`.
        batch_size: images a step.
        lr: peak learning rate of a VAE trained from scratch.
        kl_weight: weight of the ELBO's KL term.
        precision: as in `fit_vae`.
        pool: draws that the likelihood-free weights resample.
        labels: class of each biased image, (N,), from 0; the oracle's alone.
        target: wanted share of each class; the oracle's alone.
        seed: of everything random.
        track: shows progress.

    Raises:
        ValueError: a number below one, or fewer than five reference images.

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10).seed
        0
    """

    vae: VAE
    biased: Tensor
    reference: Tensor
    steps: int
    batch_size: int = 256
    lr: float = 4e-3
    kl_weight: float = 1.0
    precision: str = "auto"
    pool: int = 50_000
    labels: Tensor | None = None
    target: Sequence[float] = ()
    seed: int = 0
    track: Track = silent

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "pool"):
            check_int(name, getattr(self, name))
        if len(self.reference) < 5:
            raise fail("reference", "at least 5 images", len(self.reference), "a fifth of them is held out")

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

    def fresh(self) -> VAE:
        """An untrained VAE of the biased one's shape, on its device."""
        return self.seeded(lambda: VAE(self.vae.data_shape, self.vae.latent_dim, **self.settings()))

    def seeded(self, build: Callable[[], VAE]) -> VAE:
        """Build a VAE whose first weights follow from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build().to(next(self.vae.parameters()).device)

    def settings(self) -> dict[str, Any]:
        """What a VAE of the biased one's kind is built with, sizes aside."""
        return {k: v for k, v in self.vae.config.items() if k not in ("data_shape", "latent_dim")}


@dataclass(frozen=True)
class Sampled:
    """A fitted method.

    Attributes:
        draw: draws n images from a generator.
        steps: VAE gradient steps taken.

    Example:
        >>> Sampled(lambda n, g: Draws(torch.zeros(n, 1), torch.zeros(n, 2), torch.zeros(n))).steps
        0
    """

    draw: Callable[[int, torch.Generator], Draws]
    steps: int = 0

    def sample(self, n: int, *, generator: torch.Generator) -> Draws:
        """Draw `n` images.

        Raises:
            ValueError: n below one.
        """
        return self.draw(check_int("n", n), generator)
