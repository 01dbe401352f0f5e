"""Sharpen a fitted VAE's images: a critic learns to tell them from real ones, the VAE to leave it guessing."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from latentebm import processes
from latentebm.checks import check_int, check_number, fail
from latentebm.data.batches import minibatches
from latentebm.data.stored import StoredImages
from latentebm.models.vae import VAE
from latentebm.progress import Track, silent
from latentebm.rng import on_device, seeded
from latentebm.training.averaged import averaged
from latentebm.training.fit import FitResult, fit
from latentebm.training.logs import Log
from latentebm.training.mixed_in import MixedIn
from latentebm.training.optimisation import Optimisation

__all__ = ["Critic", "sharpen"]

CHANNELS, LEAK = (24, 48, 96), 0.2


class Critic(nn.Module):
    r"""Real or made: logits c(x) of images (N, C, H, W) in [0, 1], by three strided convolutions and a linear layer.

    Every layer's spectral norm is 1, so that no pixel can tell the two apart by itself and the gradient stays smooth.

    References:
        Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018),
        https://arxiv.org/abs/1802.05957

    Example:
        >>> Critic((3, 9, 7))(torch.rand(4, 3, 9, 7)).shape
        torch.Size([4])
    """

    def __init__(self, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(data_shape) != 3:
            raise fail("data_shape", "images (C, H, W)", data_shape, "add the missing axes, or do not sharpen")
        channels, height, width = data_shape
        layers: list[nn.Module] = []
        for i, o in pairwise((channels, *CHANNELS)):
            layers += [spectral_norm(nn.Conv2d(i, o, 3, stride=2, padding=1)), nn.LeakyReLU(LEAK)]
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        last = spectral_norm(nn.Linear(CHANNELS[-1] * height * width, 1))
        self.body = nn.Sequential(*layers, nn.Flatten(), last, nn.Flatten(0))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N,), above 0 for real images (N, C, H, W)."""
        return self.body(x)


class _Opposed(torch.autograd.Function):
    """The same numbers; backwards the opposite direction, at a given length."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: Tensor) -> Tensor:
        ctx.save_for_backward(length)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (length,) = ctx.saved_tensors
        return -gradients[0] * (length / gradients[0].norm().clamp_min(1e-12)), None


def sharpen(
    vae: VAE,
    images: Tensor | StoredImages,
    *,
    pull: float = 0.5,
    epochs: int = 10,
    batch_size: int = 256,
    lr: float = 1e-3,
    kl_weight: float = 1.0,
    autocast: bool = False,
    weights: Tensor | None = None,
    mixed: MixedIn | None = None,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Train a fitted VAE on, its reconstructions pulled towards what a critic takes for real images.

    .. math:: \max_\theta \min_c\; \mathrm{mean}_i\, w_i \big(\mathrm{ELBO}_\theta(x_i)
              + \lambda\, [\mathrm{softplus}(-c(x_i)) + \mathrm{softplus}(c(\hat x_i))]\big),
              \qquad \hat x_i = E[x | z_i],\ z_i \sim q_\theta(z|x_i)

    The likelihood counts pixels one by one and leaves what the code does not tell at its mean, a blur, which strangers
    to the model read as another class. λ follows the gradients in the decoder's output: the critic's is `pull` times
    as long as the likelihood's at every step. The code and its prior's part stay as they are in the ELBO, so that
    tilts fit as before.

    Arguments:
        vae: fitted by the ELBO; trained on in place.
        images: (N, C, H, W), uint8, in memory or on disk.
        pull: length of the critic's gradient, relative to the likelihood's, 0 or more.
        epochs: passes over the images.
        batch_size: images of a step.
        lr: peak learning rate of both networks.
        kl_weight: of the KL term.
        autocast: run the networks in bfloat16.
        weights: w, (N,); None for equal ones.
        mixed: images that take a share of every batch.
        generator: source of the critic's first weights, the batches and the posterior draws.
        track: shows progress.
        log: called as training goes; see `latentebm.training.logs.logged`.

    Returns:
        The record, in nats per image, with the critic's cross-entropies added.

    Raises:
        ValueError: a number outside its range, or data that are no images (C, H, W).
        DivergedError: the loss became NaN or infinite.

    References:
        Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016),
        https://arxiv.org/abs/1512.09300; Domain-Adversarial Training of Neural Networks (Ganin et al., 2016),
        https://arxiv.org/abs/1505.07818, for both sides in one backward pass; Taming Transformers for High-Resolution
        Image Synthesis (Esser et al., 2021), https://arxiv.org/abs/2012.09841, for the ratio of gradients.

    Example:
        >>> rng, vae = torch.Generator().manual_seed(0), VAE((1, 8, 8), 2, width=16)
        >>> images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
        >>> sharpen(vae, images, epochs=2, batch_size=16, generator=rng).steps
        8
    """
    check_number("pull", pull, low=0)
    device = next(vae.parameters()).device
    with seeded(generator):
        critic = Critic(vae.data_shape).to(device)
    sizes: dict[str, Any] = {"batch_size": batch_size, "epochs": check_int("epochs", epochs), "generator": generator}
    weights = torch.ones(len(images)) if weights is None else weights
    batches = minibatches(images, weights, device=device, own=processes.own_rows, **sizes)
    generator = processes.own_stream(generator)
    noise = on_device(generator, device)
    narrow = partial(torch.autocast, device.type, torch.bfloat16, enabled=autocast)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        x, weight = batch[0].float() / 255, batch[1]
        if mixed is not None:
            x, weight = mixed.into(x, weight, generator)
        with narrow():
            z, kl = vae.coded(x, generator=noise)
            parameter = vae.logits(z)
        nats = kl_weight * kl - vae.likelihood.log_prob(x, parameter := parameter.float())
        with narrow():
            real, made = critic(torch.cat([x, _pulled(vae, parameter, nats, pull)])).chunk(2)
        return (weight * (nats + F.softplus(-real.float()) + F.softplus(made.float()))).mean()

    both = nn.ModuleList([vae, critic]).train()
    optimisation = Optimisation(lr=lr, schedule="onecycle")
    known: dict[str, Any] = {"state": [generator, noise], "track": track, "log": log, "description": "sharpening"}
    with processes.exchange():
        result = fit(both, averaged(both, loss, batches.batch_size), batches, optimisation, **known)
    vae.eval()
    return result


def _pulled(vae: VAE, parameter: Tensor, nats: Tensor, pull: float) -> Tensor:
    """Mean images of a decoder's output, the gradient they meet turned round and scaled to the likelihood's."""
    own = torch.autograd.grad(nats.mean(), parameter, retain_graph=True)[0]
    return vae.likelihood.mean(_Opposed.apply(parameter, pull * own.norm()))
