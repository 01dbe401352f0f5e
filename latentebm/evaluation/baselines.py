r"""What one would do without a tilt: seven other ways from a biased and a reference set to balanced draws.

Every method takes a `Task` and returns a `Sampled`. The budget is counted in gradient steps of a VAE: no method takes
more of them than the biased VAE did. Where a method has something to choose (when to stop, how far to flatten), a
held-out fifth of the reference chooses it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, fail
from latentebm.data.imbalance import check_shares
from latentebm.evaluation.ratio import Ratio, fit_ratio, held_out_fifth
from latentebm.models.conditional import ConditionalVAE
from latentebm.models.tilt import LatentTilt
from latentebm.models.vae import VAE
from latentebm.progress import Track, silent
from latentebm.sampling import SNIS, Draws
from latentebm.training.fit import FitResult
from latentebm.training.generator import fit_vae

__all__ = [
    "BASELINES",
    "Sampled",
    "Task",
    "conditional",
    "fine_tuned",
    "importance_weighted",
    "likelihood_free",
    "oversampled",
    "reference_only",
    "untilted",
]

FINE_TUNING = 0.25  # of the learning rate that trains from scratch
TARGET_ESS = 0.1  # likelihood-free weights are flattened until this share of the pool counts
FLOOR = 1e-3  # and clipped from below here


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

    def settings(self) -> dict[str, object]:
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


def untilted(task: Task) -> Sampled:
    r"""The biased VAE as it is.

    .. math:: z \sim N(0, I), \qquad x = \mathrm{decode}(z)

    Arguments:
        task: what there is.

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10)
        >>> untilted(task).sample(3, generator=torch.Generator()).x.shape
        torch.Size([3, 1, 8, 8])
    """
    return Sampled(_prior(task.vae))


def reference_only(task: Task) -> Sampled:
    r"""A VAE trained on the reference alone, stopped by the ELBO of a held-out fifth.

    .. math:: \max_\theta \mathrm{mean}_{i \in ref}\, \mathrm{ELBO}_\theta(x_i)

    Arguments:
        task: what there is.

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10)
        >>> reference_only(task).steps <= 10
        True
    """
    return _stopped(task, task.fresh(), task.lr)


def fine_tuned(task: Task) -> Sampled:
    r"""The biased VAE trained on with the reference at a quarter of the rate, stopped by a held-out fifth's ELBO.

    .. math:: \theta_0 = \theta_{biased}, \qquad \max_\theta \mathrm{mean}_{i \in ref}\, \mathrm{ELBO}_\theta(x_i)

    Arguments:
        task: what there is.

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10)
        >>> fine_tuned(task).steps <= 10
        True
    """
    return _stopped(task, copy.deepcopy(task.vae).requires_grad_(True), FINE_TUNING * task.lr)


def oversampled(task: Task) -> Sampled:
    r"""A VAE trained on the union, reference images repeated until they are half of it.

    .. math:: \max_\theta \tfrac12 \mathrm{mean}_{i \in biased}\, \mathrm{ELBO}_\theta(x_i)
              + \tfrac12 \mathrm{mean}_{i \in ref}\, \mathrm{ELBO}_\theta(x_i)

    Arguments:
        task: what there is.

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10)
        >>> oversampled(task).steps <= 10
        True
    """
    vae, times = task.fresh(), max(1, round(len(task.biased) / len(task.reference)))
    union = torch.cat([task.biased, task.reference.repeat(times, 1, 1, 1)])
    return Sampled(_prior(vae), task.fit(vae, union).steps)


def importance_weighted(task: Task, *, flattening: float = 1.0) -> Sampled:
    r"""A VAE trained on the union, biased images weighted by the density ratio that a classifier reads.

    .. math:: \max_\theta \mathrm{mean}_i\, w_i\, \mathrm{ELBO}_\theta(x_i), \qquad
              w_i = \Big(\frac{p_{ref}(x_i)}{p_{biased}(x_i)}\Big)^{\alpha} \text{ (biased)}, \quad 1 \text{ (reference)}

    The classifier is stopped and its temperature set on a held-out fifth of both sets.

    Arguments:
        task: what there is.
        flattening: α; 1 trusts the classifier, 0 leaves the union unweighted.

    References:
        Fair Generative Modeling via Weak Supervision (Choi et al., 2020), https://arxiv.org/abs/1910.12008

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10)
        >>> importance_weighted(task).steps <= 10
        True
    """
    ratio = fit_ratio(task.reference, task.biased, generator=task.generator(), track=task.track)
    weights = ratio.log_ratio(task.biased).mul(flattening).exp()
    # Mean one over the biased images, so that the step size means what it does without weights.
    weights = torch.cat([weights / weights.mean(), torch.ones(len(task.reference))])
    vae = task.fresh()
    done = task.fit(vae, torch.cat([task.biased, task.reference]), weights=weights)
    return Sampled(_prior(vae), done.steps)


def likelihood_free(task: Task) -> Sampled:
    r"""Draws of the biased VAE, resampled by the data-space ratio that a classifier reads off images.

    .. math:: w(x) = \max\Big(\frac{c(x)}{1 - c(x)},\, \beta\Big)^{\alpha}

    c tells reference images from generated ones. Weights are clipped from below at β = .001 and flattened by the largest
    α of 1, .9, …, .1 that leaves an effective sample size of a tenth of the pool.

    Arguments:
        task: what there is.

    References:
        Bias Correction of Learned Generative Models using Likelihood-Free Importance Weighting (Grover et al., 2019),
        https://arxiv.org/abs/1906.09531

    Example:
        >>> images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10, pool=100)
        >>> len(likelihood_free(task).sample(5, generator=torch.Generator()))
        5
    """
    rng = task.generator()
    drawn = _prior(task.vae)(max(len(task.biased), 1), rng).x
    ratio = fit_ratio(task.reference, drawn, generator=rng, track=task.track)
    log_weight = ratio.log_ratio(drawn)
    powers = [a / 10 for a in range(10, 0, -1)]
    chosen = next((a for a in powers if _ess(_clipped(log_weight) * a) >= TARGET_ESS), powers[-1])
    energy = _RatioEnergy(task.vae, ratio, chosen)
    return Sampled(lambda n, g: SNIS(pool=task.pool, chunk=8192).draw(LatentTilt(task.vae, energy), n, generator=g))


def conditional(task: Task) -> Sampled:
    r"""Oracle: a VAE told every biased image's class, asked for classes in the target's shares.

    .. math:: y \sim t, \quad z \sim N(0, I), \quad x = \mathrm{decode}(z, y)

    Arguments:
        task: what there is, with labels and target.

    Raises:
        ValueError: no labels, or a target that is none.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et al., 2015),
        https://papers.nips.cc/paper/5775

    Example:
        >>> images, labels = torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8) % 2
        >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10, labels=labels,
        ...             target=[0.5, 0.5])
        >>> len(conditional(task).sample(5, generator=torch.Generator()))
        5
    """
    if task.labels is None:
        raise fail("labels", "the class of each biased image", "none", "pass labels; this method needs them")
    n_classes = int(task.labels.max()) + 1
    shares = torch.tensor(check_shares("target", task.target, n_classes))
    built = task.seeded(
        lambda: ConditionalVAE(task.vae.data_shape, task.vae.latent_dim, n_classes=n_classes, **task.settings())
    )
    done = task.fit(built, task.biased, labels=task.labels)

    def draw(n: int, generator: torch.Generator) -> Draws:
        z = torch.randn(n, built.latent_dim, generator=generator).to(next(built.parameters()))
        labels = torch.multinomial(shares, n, replacement=True, generator=generator).to(z.device)
        x = built.decode(z, labels=labels)  # type: ignore[call-arg]
        return Draws(x, z, torch.zeros(n), {"sampler": "prior"})

    return Sampled(draw, done.steps)


BASELINES: dict[str, Callable[[Task], Sampled]] = {
    "untilted": untilted,
    "reference only": reference_only,
    "fine-tuned": fine_tuned,
    "oversampled": oversampled,
    "importance-weighted": importance_weighted,
    "likelihood-free weights": likelihood_free,
    "conditional (oracle)": conditional,
}


class _RatioEnergy(nn.Module):
    """Energy of a code: minus the flattened log-ratio of its decoded image."""

    def __init__(self, vae: VAE, ratio: Ratio, flattening: float) -> None:
        super().__init__()
        self.vae, self.ratio, self.flattening = vae, ratio, flattening

    def forward(self, z: Tensor) -> Tensor:
        return -_clipped(self.ratio.log_ratio(self.vae.decode(z))) * self.flattening


def _clipped(log_weight: Tensor) -> Tensor:
    return log_weight.clamp_min(torch.tensor(FLOOR).log().item())


def _ess(log_weight: Tensor) -> float:
    weight = log_weight.double().softmax(0)
    return float(1 / weight.square().sum() / len(weight))


def _stopped(task: Task, vae: VAE, lr: float) -> Sampled:
    fitted, aside = held_out_fifth(task.reference, task.generator())
    return Sampled(_prior(vae), task.fit(vae, fitted, lr=lr, held_out=aside).steps)


def _prior(vae: VAE) -> Callable[[int, torch.Generator], Draws]:
    def draw(n: int, generator: torch.Generator) -> Draws:
        z = torch.randn(n, vae.latent_dim, generator=generator).to(next(vae.parameters()))
        return Draws(vae.decode(z), z, torch.zeros(n), {"sampler": "prior"})

    return draw
