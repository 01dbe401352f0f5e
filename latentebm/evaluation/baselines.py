r"""What one would do without a tilt: seven other ways from a biased and a reference set to balanced draws.

Every method takes a `Task` and returns a `Sampled`. The budget is counted in gradient steps of a VAE: no method takes
more of them than the biased VAE did. Where a method has something to choose (when to stop, how far to flatten), a
held-out fifth of the reference chooses it.

Example:
    >>> images, labels = torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8) % 2
    >>> task = Task(vae=VAE((1, 8, 8), 2, width=16), biased=images, reference=images, steps=10, labels=labels,
    ...             target=[0.5, 0.5], pool=100)
    >>> {name: method(task).steps for name, method in list(BASELINES.items())[:3]}
    {'untilted': 0, 'reference only': 10, 'fine-tuned': 10}
    >>> len(conditional(task).sample(5, generator=torch.Generator()))
    5
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_shares, fail
from latentebm.evaluation.ratio import Ratio, fit_ratio, held_out_fifth
from latentebm.models.tilts import LatentTilt
from latentebm.models.vae import VAE, ConditionalVAE
from latentebm.progress import Track, silent
from latentebm.rng import seeded, weighted_rows
from latentebm.sampling import SNIS, Draws
from latentebm.sampling.importance.weights import ess
from latentebm.training.fit import FitResult
from latentebm.training.fit_vae import fit_vae

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

FILLING = 1.5  # weight of a KL term under which codes of many dimensions fill a normal prior
FINE_TUNING = 0.25  # of the learning rate that trains from scratch
TARGET_ESS = 0.1  # likelihood-free weights are flattened until this share of the pool counts
FLOOR = 1e-3  # and clipped from below here


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
    pull: float = 0.0  # of a critic, see `latentebm.training.sharpen.sharpen`
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # as in `fit_vae`
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

    def fit(self, vae: VAE, images: Tensor, *, lr: float | None = None, **settings: Any) -> FitResult:
        """Fit a VAE within the budget, by batches that spend it in whole passes, with a prior like the biased one's."""
        own = {"kl_weight": self.kl_weight, "pull": self.pull, "components": self.vae.config["components"]}
        epochs = min(self.steps, math.ceil(self.steps * self.batch_size / len(images)))
        return fit_vae(
            vae,
            images,
            epochs=epochs,
            batch_size=max(1, len(images) // (self.steps // epochs)),
            lr=lr or self.lr,
            precision=self.precision,
            generator=self.generator(),
            track=self.track,
            **{**own, **settings},
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


def untilted(task: Task) -> Sampled:
    """The biased VAE as it is."""
    return Sampled(_prior(task.vae))


def reference_only(task: Task) -> Sampled:
    """A VAE trained on the reference alone, stopped by the ELBO of a held-out fifth."""
    return _stopped(task, task.fresh(), task.lr)


def fine_tuned(task: Task) -> Sampled:
    """The biased VAE trained on with the reference at a quarter of the rate, stopped by a held-out fifth's ELBO."""
    return _stopped(task, copy.deepcopy(task.vae).requires_grad_(True), FINE_TUNING * task.lr)


def oversampled(task: Task) -> Sampled:
    r"""A VAE trained on the union, reference images repeated until they are half of it.

    .. math:: \max_\theta \tfrac12 \mathrm{mean}_{i \in biased}\, \mathrm{ELBO}_\theta(x_i)
              + \tfrac12 \mathrm{mean}_{i \in ref}\, \mathrm{ELBO}_\theta(x_i)
    """
    vae, times = task.fresh(), max(1, round(len(task.biased) / len(task.reference)))
    union = torch.cat([task.biased, task.reference.repeat(times, 1, 1, 1)])
    return Sampled(_prior(vae), task.fit(vae, union).steps)


def importance_weighted(task: Task, *, flattening: float = 1.0) -> Sampled:
    r"""A VAE trained on the union, biased images weighted by the density ratio that a classifier reads.

    .. math:: \max_\theta \mathrm{mean}_i\, w_i\, \mathrm{ELBO}_\theta(x_i),
              w_i = \Big(\frac{p_{ref}(x_i)}{p_{biased}(x_i)}\Big)^{\alpha} \text{ (biased)},\ 1 \text{ (reference)}

    A `flattening` α of 1 trusts the classifier, 0 leaves the union unweighted.

    References:
        Fair Generative Modeling via Weak Supervision (Choi et al., 2020), https://arxiv.org/abs/1910.12008
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

    c tells reference images from generated ones. Weights are clipped from below at β = .001 and flattened by the
    largest α of 1, .9, …, .1 that leaves an effective sample size of a tenth of the pool.

    References:
        Bias Correction of Learned Generative Models using Likelihood-Free Importance Weighting (Grover et al., 2019),
        https://arxiv.org/abs/1906.09531
    """
    rng = task.generator()
    drawn = _prior(task.vae)(max(len(task.biased), 1), rng).x
    ratio = fit_ratio(task.reference, drawn, generator=rng, track=task.track)
    log_weight = _clipped(ratio.log_ratio(drawn))
    powers = [a / 10 for a in range(10, 0, -1)]
    chosen = next((a for a in powers if float(ess(log_weight.double() * a)) >= TARGET_ESS), powers[-1])
    tilt = LatentTilt(task.vae, _RatioEnergy(task.vae, ratio, chosen))
    return Sampled(lambda n, g: SNIS(pool=task.pool, chunk=8192).draw(tilt, n, generator=g))


def conditional(task: Task) -> Sampled:
    r"""Oracle: a VAE told every biased image's class, which the task must give, asked for the target's shares.

    .. math:: y \sim t, \quad z \sim N(0, I), \quad x = \mathrm{decode}(z, y)
    """
    if task.labels is None:
        raise fail("labels", "the class of each biased image", None, "pass labels; this method needs them")
    n_classes = int(task.labels.max()) + 1
    shares = torch.tensor(check_shares("target", task.target, n_classes))
    vae = task.fresh(ConditionalVAE, n_classes=n_classes)
    # A code that holds the class as well would contradict the label: such codes must fill N(0, I) themselves.
    own = {"components": 0, "kl_weight": FILLING} if task.vae.prior is not None else {}
    done = task.fit(vae, task.biased, labels=task.labels, pull=0.0, **own)

    def classes(n: int, generator: torch.Generator) -> Tensor:
        return weighted_rows(shares, n, generator)

    return Sampled(_prior(vae, labels=classes), done.steps)


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
    return log_weight.clamp_min(math.log(FLOOR))


def _stopped(task: Task, vae: VAE, lr: float) -> Sampled:
    fitted, aside = held_out_fifth(task.reference, task.generator())
    return Sampled(_prior(vae), task.fit(vae, fitted, lr=lr, held_out=aside).steps)


def _prior(vae: VAE, **given: Callable[[int, torch.Generator], Tensor]) -> Callable[[int, torch.Generator], Draws]:
    """Draws of a VAE's prior; `given` are drawn too, after the codes, and handed to the decoder."""

    def draw(n: int, generator: torch.Generator) -> Draws:
        z = LatentTilt(vae, nn.Identity()).sample_base(n, generator=generator)
        more = {name: make(n, generator).to(z.device) for name, make in given.items()}
        return Draws(vae.decode(z, **more), z, torch.zeros(n), {"sampler": "prior"})  # type: ignore[arg-type]

    return draw
