"""Diffusion models of the diffusers library, by deterministic samplers: noise to image."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.checks import check_int, check_number, fail

__all__ = ["from_diffusers"]

DETERMINISTIC = (
    *("DDIMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler"),
    *("FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"),
)
ONE_STEP = ("CMStochasticIterativeScheduler", "LCMScheduler", "TCDScheduler")  # they draw noise between steps only


class _Denoiser(nn.Module):
    """A network and a scheduler, run from noise to image; the scheduler itself multiplies by its first sigma, once."""

    def __init__(self, net: nn.Module, vae: nn.Module | None, scheduler: Any, steps: int, scale: float) -> None:
        super().__init__()
        self.net, self.vae, self.scheduler, self.steps, self.scale = net, vae, scheduler, steps, scale
        self.prompt: Tensor | None
        self.register_buffer("prompt", None)  # embeddings (1 or 2, L, C): with guidance, the empty prompt's first

    def forward(self, z: Tensor) -> Tensor:
        scheduler = copy.deepcopy(self.scheduler)  # multistep schedulers remember
        scheduler.set_timesteps(self.steps, device=z.device)
        x = z * float(getattr(scheduler, "init_noise_sigma", 1.0))
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(self._guided(scaled, t), t, x).prev_sample.to(z.dtype)
        if self.vae is None:
            return x
        config: Any = self.vae.config
        return self.vae.decode(x / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)).sample  # type: ignore[operator]

    def _guided(self, x: Tensor, t: Tensor) -> Tensor:
        when = t.expand(len(x))
        if self.prompt is None:
            return self.net(x, when).sample
        found = [self.net(x, when, encoder_hidden_states=p.expand(len(x), -1, -1)).sample for p in self.prompt]
        return found[-1] if len(found) == 1 else found[0] + self.scale * (found[1] - found[0])

    def invert(self, x: Tensor) -> Tensor:
        """Noise that leads to images, by DDIM run backwards: approximate, better with more steps."""
        from diffusers import DDIMInverseScheduler

        inverse = DDIMInverseScheduler.from_config(self.scheduler.config)
        inverse.set_timesteps(self.steps, device=x.device)
        for t in inverse.timesteps:
            x = inverse.step(self._guided(x, t), t, x).prev_sample
        return x.flatten(1)


def from_diffusers(
    pipeline_or_unet: Any,
    scheduler: Any = None,
    *,
    steps: int = 20,
    prompt: str | None = None,
    guidance_scale: float = 1.0,
    batch_size: int = 64,
) -> WrappedModel:
    r"""A diffusion or flow-matching model as a function of its starting noise.

    .. math:: x = x_0, \quad x_T = \sigma_T z, \quad z \sim N(0, I), \quad
        x_{t-1} = \mathrm{step}(\epsilon_\theta(x_t, t), t, x_t)

    A model in pixel space under DDIM can ``encode``, by DDIM run backwards. Prompt and steps are fixed here: a tilt
    saved for others is refused.

    Arguments:
        pipeline_or_unet: a pipeline with ``unet`` or ``transformer`` and perhaps ``vae``, or the network alone.
        scheduler: None takes the pipeline's. DDIM (η = 0), DPM-Solver++, Euler and flow-match Euler among others;
            consistency and other one-step models with ``steps=1``.
        steps: of the sampler.
        prompt: text, where the pipeline takes one.
        guidance_scale: of classifier-free guidance; 1 for none.
        batch_size: images denoised at once.

    Raises:
        ValueError: a scheduler that draws noise of its own, or one that is missing.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), https://arxiv.org/abs/2010.02502

    Example:
        >>> from diffusers import DDIMScheduler, UNet2DModel
        >>> unet = UNet2DModel(8, 1, 1, block_out_channels=(8,), down_block_types=("DownBlock2D",),
        ...     up_block_types=("UpBlock2D",), layers_per_block=1, norm_num_groups=4).eval()
        >>> model = from_diffusers(unet, DDIMScheduler(num_train_timesteps=100), steps=4)
        >>> model.decode(torch.randn(2, 64)).shape
        torch.Size([2, 1, 8, 8])
    """
    net = next((getattr(pipeline_or_unet, k) for k in ("unet", "transformer") if hasattr(pipeline_or_unet, k)), None)
    vae, net = (None, pipeline_or_unet) if net is None else (getattr(pipeline_or_unet, "vae", None), net)
    schedule = scheduler if scheduler is not None else getattr(pipeline_or_unet, "scheduler", None)
    _check_deterministic(schedule, check_int("steps", steps))
    denoiser = _Denoiser(net, vae, schedule, steps, check_number("guidance_scale", guidance_scale, low=0)).eval()
    denoiser.requires_grad_(False)
    if prompt is not None:
        denoiser.prompt = _embedded(pipeline_or_unet, prompt, guidance_scale != 1)
    size = net.config.sample_size
    shape = (net.config.in_channels, *((size, size) if isinstance(size, int) else tuple(size)))
    encoder = denoiser.invert if vae is None and type(schedule).__name__ == "DDIMScheduler" else None
    settings = {
        "scheduler": type(schedule).__name__,
        "steps": steps,
        "prompt": prompt,
        "guidance_scale": guidance_scale,
    }
    known: dict[str, Any] = {"latent_shape": shape, "encoder": encoder, "batch_size": batch_size, "settings": settings}
    return WrappedModel(denoiser, math.prod(shape), **known)


def _check_deterministic(scheduler: Any, steps: int) -> None:
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    noisy = str(config.get("algorithm_type", "")).startswith("sde") or bool(config.get("stochastic_sampling"))
    if (name in DETERMINISTIC and not noisy) or (name in ONE_STEP and steps == 1):
        return
    fix = "pass for example DDIMScheduler.from_config(scheduler.config)"
    raise fail(
        "scheduler", "a deterministic one", f"{name}, which draws noise of its own" if scheduler else "None", fix
    )


def _embedded(pipeline: Any, prompt: str, guided: bool) -> Tensor:
    if not hasattr(pipeline, "encode_prompt"):
        raise fail("prompt", "a pipeline that takes one", type(pipeline).__name__, "leave it out")
    with torch.no_grad():
        own, empty = pipeline.encode_prompt(prompt, pipeline.device, 1, guided)[:2]
    return torch.cat([empty, own]) if guided else own
