"""Fit a VAE to images, in memory or on disk."""

from __future__ import annotations

import platform
from collections.abc import Callable
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor

from latentebm import processes
from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.data.batches import minibatches
from latentebm.data.stored import StoredImages
from latentebm.models.vae import VAE
from latentebm.progress import Track, silent
from latentebm.rng import on_device
from latentebm.training.averaged import averaged
from latentebm.training.fit import FitResult, fit
from latentebm.training.fit_prior import fit_prior
from latentebm.training.logs import Log
from latentebm.training.mixed_in import MixedIn
from latentebm.training.optimisation import Optimisation
from latentebm.training.sharpen import sharpen

__all__ = ["PRECISIONS", "bf16_pays", "fit_vae"]

PRECISIONS = ("auto", "bf16", "fp32")
X86 = ("x86_64", "amd64")
HARDWARE = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch's probes of an x86 processor


def bf16_pays(device: torch.device) -> bool:
    """Whether `device` has bfloat16 arithmetic in hardware.

    An x86 processor with AVX-512 alone imitates it: a training step takes twice as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # true where it is imitated, too
    if device.type != "cpu" or probe is None or not probe():
        return False
    return platform.machine().lower() not in X86 or any(getattr(torch.cpu, name, bool)() for name in HARDWARE)


def fit_vae(
    vae: VAE,
    images: Tensor | StoredImages,
    *,
    epochs: int = 40,
    batch_size: int = 256,
    lr: float = 4e-3,
    kl_weight: float = 1.0,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    weights: Tensor | None = None,
    labels: Tensor | None = None,
    mixed: MixedIn | None = None,
    held_out: Tensor | None = None,
    patience: int | None = 5,
    pull: float = 0.0,
    components: int = 0,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Maximise the ELBO of images by AdamW with a one-cycle learning rate; several processes share each batch.

    .. math:: \max_\theta \mathrm{mean}_i\, w_i \big(E_q[\log p(x_i|z)] - \beta\,\mathrm{KL}(q(z|x_i)\,\|\,p_0)\big)

    Losses are nats per image. Images are uint8 (N, C, H, W), in memory or `StoredImages`, weights w and
    labels, of a `ConditionalVAE`, (N,).

    With `kl_weight` β above 1 the codes of all images together come closer to the prior, from which new ones are drawn.
    The precision is ``fp32``, ``bf16`` autocast, or ``auto``: bf16 where the processor has it. The ELBO of images held
    out picks the best state, and stops the fit after `patience` checks, 25 steps apart, without improvement. Images
    `mixed` in take their share of every batch from the others. With a `pull` above 0 a quarter as many epochs follow in
    which a critic sharpens the images; see `latentebm.training.sharpen.sharpen`. A learned prior of at most so many
    `components` is fitted to the codes at last; 0 leaves the standard normal one. See
    `latentebm.training.fit_prior.fit_prior`.

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
        >>> result = fit_vae(VAE((1, 8, 8), 2, width=16), images, epochs=8, batch_size=8, lr=0.01, generator=rng)
        >>> result.losses[-1] < 64 * 0.6931
        True
    """
    device = next(vae.parameters()).device
    check_number("kl_weight", kl_weight, low=0, open_low=True)
    check_choice("precision", precision, PRECISIONS)
    if mixed is not None and labels is not None:
        raise fail("mixed", "None with labels, which mixed images lack", "both", "pass one of the two")
    if check_number("pull", pull, low=0) and labels is not None:
        raise fail("pull", "0 with labels, without which images are sharpened", pull, "leave pull out")
    vae.set_prior(None)
    autocast = precision == "bf16" or (precision == "auto" and bf16_pays(device))
    beside = [torch.ones(len(images)) if weights is None else weights, *([] if labels is None else [labels])]
    sizes: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "generator": generator}
    batches = minibatches(images, *beside, device=device, own=processes.own_rows, **sizes)
    generator = processes.own_stream(generator)  # the order of the batches is common to all processes, noise is not
    noise = on_device(generator, device)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        x, weight, *label = batch
        known = {"labels": label[0]} if label else {}
        x = x.float() / 255
        if mixed is not None:
            x, weight = mixed.into(x, weight, generator)
        nats = vae.loss(x, generator=noise, kl_weight=kl_weight, autocast=autocast, **known)
        return (weight * nats).mean()

    validate = None if held_out is None else _held_out_score(vae, held_out.to(device), kl_weight)
    watch: dict[str, Any] = {"validate": validate, "every": 25 if validate else 100, "patience": patience}
    vae.train()
    optimisation = Optimisation(lr=lr, schedule="onecycle")
    held = [] if held_out is None else [held_out]
    known: dict[str, Any] = {
        "state": [generator, noise],
        "data": held,
        "track": track,
        "log": log,
        "description": "VAE",
    }
    with processes.exchange():
        result = fit(vae, averaged(vae, loss, batches.batch_size), batches, optimisation, **watch, **known)
    vae.eval()
    own: dict[str, Any] = {"weights": weights, "mixed": mixed, "generator": generator}
    if pull:
        more: dict[str, Any] = {"kl_weight": kl_weight, "autocast": autocast, "batch_size": batch_size}
        sharpen(vae, images, pull=pull, epochs=ceil(epochs / 4), **more, **own, track=track, log=log)
    if check_int("components", components, low=0):
        fit_prior(vae, images, components=components, **own)
    return result


def _held_out_score(vae: VAE, images: Tensor, kl_weight: float) -> Callable[[], Tensor]:
    """Mean negative ELBO of held-out images under the same posterior noise at every check."""
    x = images.float() / 255
    # A few images are scored by several posterior draws each.
    x = x.repeat(max(1, 256 // len(x)), *[1] * (x.ndim - 1))
    return lambda: vae.loss(x, generator=torch.Generator().manual_seed(0), kl_weight=kl_weight).mean()
