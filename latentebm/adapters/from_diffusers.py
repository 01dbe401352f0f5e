"""Diffusion models of the diffusers library, by deterministic samplers: noise to image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latentebm.adapters.diffusion.denoiser import Denoiser
from latentebm.adapters.diffusion.pipeline_parts import noise_shape, parts_of
from latentebm.adapters.diffusion.prompts import put_prompts
from latentebm.adapters.diffusion.schedulers import check_deterministic, described
from latentebm.adapters.from_module import WrappedModel
from latentebm.checks import check_int, check_number

__all__ = ["from_diffusers"]


def from_diffusers(
    pipeline_or_unet: Any,
    scheduler: Any = None,
    *,
    steps: int = 20,
    prompt: str | Mapping[str, float] | None = None,
    guidance_scale: float = 1.0,
    batch_size: int = 64,
) -> WrappedModel:
    r"""A diffusion or flow-matching model, in pixels or in a VAE's latent space, as a function of its starting noise.

    .. math:: x_T = \sigma_T z, \quad z \sim N(0, I), \quad x_{t-1} = \mathrm{step}(\epsilon_\theta(x_t, t), t, x_t)

    Under DDIM and one prompt the model can ``encode``, by DDIM run backwards. Prompt and steps are fixed here: a tilt
    saved for others is refused. The network's weights are used as they are, and receive no gradient.

    Arguments:
        pipeline_or_unet: a pipeline with ``unet`` or ``transformer`` and perhaps ``vae``, or the network alone.
        scheduler: None takes the pipeline's. DDIM (η = 0), DPM-Solver++, Euler and flow-match Euler among others;
            consistency and other one-step models with ``steps=1``.
        prompt: text, where the pipeline takes one; or several with their prior shares, one drawn with every code and
            tilted together with it.
        guidance_scale: of classifier-free guidance; 1 for none.
        batch_size: images denoised at once.

    Raises:
        ValueError: a scheduler that draws noise of its own or is missing, a prompt or a guidance without a use, or a
            network that takes more than noise, time and the embedding of a prompt.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), https://arxiv.org/abs/2010.02502

    Example:
        >>> import torch
        >>> from diffusers import DDIMScheduler, UNet2DModel
        >>> unet = UNet2DModel(8, 1, 1, block_out_channels=(8,), down_block_types=("DownBlock2D",),
        ...     up_block_types=("UpBlock2D",), layers_per_block=1, norm_num_groups=4).eval()
        >>> model = from_diffusers(unet, DDIMScheduler(num_train_timesteps=100), steps=4)
        >>> model.decode(torch.randn(2, 64)).shape
        torch.Size([2, 1, 8, 8])
    """
    net, vae = parts_of(pipeline_or_unet)
    schedule = scheduler if scheduler is not None else getattr(pipeline_or_unet, "scheduler", None)
    check_deterministic(schedule, check_int("steps", steps))
    denoiser = Denoiser(net, vae, schedule, steps, check_number("guidance_scale", guidance_scale, low=0))
    shares = put_prompts(denoiser, pipeline_or_unet, prompt, guidance_scale)
    denoiser.eval().requires_grad_(False)
    shape, several = noise_shape(net), len(shares) > 1
    known = {**described(schedule), "steps": steps, "prompt": list(shares), "guidance_scale": guidance_scale}
    encoder = denoiser.invert if known["scheduler"] == "DDIMScheduler" and not several else None
    made: dict[str, Any] = {"latent_shape": shape, "encoder": encoder, "batch_size": batch_size, "settings": known}
    return WrappedModel(denoiser, math.prod(shape), labels=list(shares.values()) if several else None, **made)
