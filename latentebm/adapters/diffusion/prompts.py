"""Prompts of a diffusers pipeline as embeddings that a denoiser holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from latentebm.adapters.diffusion.denoiser import Denoiser
from latentebm.checks import fail

__all__ = ["put_prompts"]


def put_prompts(
    denoiser: Denoiser, pipe: Any, prompt: str | Mapping[str, float] | None, scale: float
) -> dict[str, float]:
    """Put the prompts' embeddings, and where the network takes it that of the scale, into a denoiser; their shares."""
    shares = _shares(prompt)
    prompts = list(shares)
    if not prompts and _reads_text(denoiser.net):
        raise fail("prompt", "text, which the network reads", None, 'pass the pipeline and prompt="...", "" for none')
    if not prompts and scale != 1:
        raise fail("guidance_scale", "1 without a prompt", scale, "pass a prompt, or leave it out")
    if prompts and not hasattr(pipe, "encode_prompt"):
        raise fail("prompt", "a pipeline that takes one", type(pipe).__name__, "leave it out")
    width = getattr(denoiser.net.config, "time_cond_proj_dim", None)
    if width is not None and prompts:
        denoiser.guidance = pipe.get_guidance_scale_embedding(torch.tensor([scale - 1]), width)
    guided = scale != 1 and width is None
    with torch.no_grad():
        both = [_encoded(pipe, text, guided) for text in prompts]
    if both:
        sides = [[empty for _, empty in both], [own for own, _ in both]] if guided else [[own for own, _ in both]]
        denoiser.prompt = torch.stack([torch.cat(side) for side in sides])
    return shares


def _shares(prompt: str | Mapping[str, float] | None) -> dict[str, float]:
    """Prompts and their shares."""
    if prompt is None or isinstance(prompt, str):
        return {} if prompt is None else {prompt: 1.0}
    if not isinstance(prompt, Mapping) or not all(isinstance(text, str) for text in prompt):
        fix = 'pass for example {"a man": 0.5, "a woman": 0.5}'
        raise fail("prompt", "text, or a mapping of texts to shares", repr(prompt), fix)
    return dict(prompt)


def _reads_text(net: Any) -> bool:
    """Whether a network cannot be called without the embedding of a prompt."""
    taken = inspect.signature(net.forward).parameters.get("encoder_hidden_states")
    return taken is not None and taken.default is inspect.Parameter.empty


def _encoded(pipe: Any, text: str, guided: bool) -> tuple[Any, Any]:
    """Embeddings of a prompt and of the empty one."""
    own, empty, *more = pipe.encode_prompt(text, pipe.device, 1, guided)
    if any(part is not None for part in more):
        expected, fix = (
            "one whose network reads one embedding, such as Stable Diffusion 1 or 2",
            "use WrappedModel(...)",
        )
        raise fail("pipeline_or_unet", expected, f"{type(pipe).__name__}, whose network reads more", fix)
    return own, empty
