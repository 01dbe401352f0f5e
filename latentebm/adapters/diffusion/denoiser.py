"""A diffusion network and a deterministic scheduler as one function from noise to image."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Denoiser"]


class Denoiser(nn.Module):
    """A network run from noise to image by a scheduler; its first sigma multiplies the noise here, and only once."""

    def __init__(self, net: nn.Module, vae: nn.Module | None, scheduler: Any, steps: int, scale: float) -> None:
        super().__init__()
        self.net, self.vae, self.steps, self.scale = net, vae, steps, scale
        self.scheduler = copy.deepcopy(scheduler)  # the pipeline's own may be set otherwise later
        self.prompt: Tensor | None
        self.guidance: Tensor | None
        # Embeddings (G, K, L, C) of K prompts; with guidance, G = 2 and the empty prompt's come first.
        self.register_buffer("prompt", None)
        self.register_buffer("guidance", None)  # embedding (1, D) of the scale, in networks distilled to take it

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Images of noise (N, C, H, W), by the prompt of each label (N,)."""
        scheduler = copy.deepcopy(self.scheduler)  # multistep schedulers remember
        scheduler.set_timesteps(self.steps, device=z.device)
        x = z * float(getattr(scheduler, "init_noise_sigma", 1.0))
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(self._guided(scaled, t, label), t, x).prev_sample.to(z.dtype)
        if self.vae is None:
            return x
        # As in the library's own pipelines: a VAE overshoots.
        return self.vae.decode(x / self._factor + self._shift).sample.clamp(-1, 1)  # type: ignore[operator]

    def invert(self, x: Tensor) -> Tensor:
        """Noise (N, d) that leads to images, by DDIM run backwards: approximate, better with more steps."""
        from diffusers import DDIMInverseScheduler

        if self.vae is not None:
            x = (self.vae.encode(x).latent_dist.mode() - self._shift) * self._factor  # type: ignore[operator]
        inverse = DDIMInverseScheduler.from_config(self.scheduler.config)
        inverse.set_timesteps(self.steps, device=x.device)
        for t in inverse.timesteps:
            x = inverse.step(self._guided(x, t, None), t, x).prev_sample
        return x.flatten(1)

    def _guided(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        when, more = t.expand(len(x)), {} if self.guidance is None else {"timestep_cond": self.guidance.to(x)}
        if self.prompt is None:
            return self.net(x, when, **more).sample
        which = torch.zeros(len(x), dtype=torch.long, device=x.device) if label is None else label
        found = [self.net(x, when, encoder_hidden_states=p[which], **more).sample for p in self.prompt]
        return found[-1] if len(found) == 1 else found[0] + self.scale * (found[1] - found[0])

    @property
    def _factor(self) -> float:
        return self.vae.config.scaling_factor  # type: ignore[union-attr, return-value]

    @property
    def _shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0  # type: ignore[union-attr]
