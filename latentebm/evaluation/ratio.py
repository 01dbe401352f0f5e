"""Density ratio of two sets of images, read off a classifier that tells them apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.models.networks import Conv
from latentebm.progress import Track, silent
from latentebm.rng import integers, permutation, seeded
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation

__all__ = ["Ratio", "fit_ratio", "held_out_fifth"]

WIDTH, STEPS, BATCH = 128, 800, 128
ACTIVATIONS = 8  # numbers that the convnet holds for each pixel
TEMPERATURES = torch.arange(1, 21) / 10  # factors of the logit that the held-out fifth chooses among


class Ratio(nn.Module):
    r"""A convnet whose logit is the log-ratio of two densities.

    .. math:: \mathrm{logit}(x) = \log p_a(x) - \log p_b(x)
    """

    temperature: Tensor

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net = Conv(WIDTH).encoder(data_shape, 1)
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,) of images, uint8 or float in [0, 1], before the temperature."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        return self.net(x).squeeze(1)

    @torch.no_grad()
    def log_ratio(self, images: Tensor) -> Tensor:
        """Calibrated log-ratios (N,) of images, nats."""
        size = chunk_size(max(1, ACTIVATIONS * images[:1].numel()), images.device)
        return in_chunks(self, images, size) * self.temperature


def fit_ratio(a: Tensor, b: Tensor, *, steps: int = STEPS, generator: torch.Generator, track: Track = silent) -> Ratio:
    r"""Tell a from b in balanced batches, keep the best state on a held-out fifth of each, and calibrate there.

    .. math:: \min \mathrm{mean}_{x \in a} \mathrm{softplus}(-f(x)) + \mathrm{mean}_{x \in b} \mathrm{softplus}(f(x))

    Both are at least five images (N, C, H, W), uint8 or float in [0, 1]; `steps` is the most that are taken.

    References:
        Learning in Implicit Generative Models (Mohamed and Lakshminarayanan, 2016), https://arxiv.org/abs/1610.03483;
        On Calibration of Modern Neural Networks (Guo et al., 2017), https://arxiv.org/abs/1706.04599

    Example:
        >>> dark, light = torch.rand(200, 1, 8, 8) / 2, torch.rand(200, 1, 8, 8)
        >>> ratio = fit_ratio(light, dark, steps=50, generator=torch.Generator().manual_seed(0))
        >>> bool(ratio.log_ratio(torch.ones(1, 1, 8, 8)) > ratio.log_ratio(torch.zeros(1, 1, 8, 8)))
        True
    """
    (fit_a, aside_a), (fit_b, aside_b) = (held_out_fifth(x, generator) for x in (a, b))
    with seeded(generator):
        ratio = Ratio(tuple(a.shape[1:])).to(a.device)

    def loss(step: int) -> Tensor:
        return _cross_entropy(*(ratio(x[integers(len(x), (BATCH,), generator, x.device)]) for x in (fit_a, fit_b)))

    def held_out() -> Tensor:
        return _cross_entropy(ratio.log_ratio(aside_a), ratio.log_ratio(aside_b))

    recipe = Optimisation(weight_decay=1e-2, schedule="cosine")
    known: dict[str, Any] = {"state": [generator], "data": [a, b], "track": track, "description": "ratio"}
    fit(ratio, loss, range(steps), recipe, validate=held_out, every=25, patience=8, **known)
    ratio.requires_grad_(False).eval()
    logits = [ratio.log_ratio(x) for x in (aside_a, aside_b)]
    values = torch.stack([_cross_entropy(*(t * x for x in logits)) for t in TEMPERATURES.to(a.device)])
    ratio.temperature.copy_(TEMPERATURES[values.argmin().cpu()])
    return ratio


def held_out_fifth(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut at least five images at random into four fifths to fit and one to watch."""
    if len(images) < 5:
        raise fail("images", "at least 5", len(images), "pass more: a fifth of them is held out")
    order, cut = permutation(len(images), generator, images.device), len(images) // 5
    return images[order[cut:]], images[order[:cut]]


def _cross_entropy(a: Tensor, b: Tensor) -> Tensor:
    return F.softplus(-a).mean() + F.softplus(b).mean()
