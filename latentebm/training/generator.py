"""Fit a VAE to images held in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_number
from latentebm.data.batches import Minibatches
from latentebm.models.vae import VAE
from latentebm.progress import Track, silent
from latentebm.training.fit import FitResult, fit

__all__ = ["PRECISIONS", "bf16_pays", "fit_vae"]

PRECISIONS = ("auto", "bf16", "fp32")


def bf16_pays(device: torch.device) -> bool:
    """Whether `device` has bfloat16 arithmetic in hardware.

    Example:
        >>> isinstance(bf16_pays(torch.device("cpu")), bool)
        True
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


def fit_vae(
    vae: VAE,
    images: Tensor,
    *,
    epochs: int = 40,
    batch_size: int = 256,
    lr: float = 4e-3,
    kl_weight: float = 1.0,
    precision: str = "auto",
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Maximise the ELBO of images by AdamW with a one-cycle learning rate.

    .. math:: \max_\theta \mathrm{mean}_i\, \big(E_q[\log p(x_i|z)] - \beta\,\mathrm{KL}(q(z|x_i)\,\|\,p_0)\big)

    Arguments:
        vae: fitted in place.
        images: (N, C, H, W), uint8; converted batch by batch.
        epochs: passes over the images.
        batch_size: images a step.
        lr: peak learning rate.
        kl_weight: weight β of the KL term in training; above 1 the codes of all images together come closer to the
            prior, which is where the generator draws from.
        precision: ``fp32``, ``bf16`` autocast, or ``auto``: bf16 where the processor has it.
        generator: source of batch order and posterior noise (CPU).
        track: shows progress.

    Returns:
        The record of the fit; losses are nats an image.

    Raises:
        ValueError: an argument lies outside its range.
        DivergedError: the loss became NaN or infinite.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114;
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
    autocast = precision == "bf16" or (precision == "auto" and bf16_pays(device))
    batches = Minibatches(images.to(device), batch_size=batch_size, epochs=epochs, generator=generator)

    def loss(batch: tuple[Tensor]) -> Tensor:
        return vae.loss(batch[0].float() / 255, generator=generator, kl_weight=kl_weight, autocast=autocast).mean()

    vae.train()
    result = fit(vae, loss, batches, lr=lr, schedule="onecycle", track=track, description="VAE")
    vae.eval()
    return result
