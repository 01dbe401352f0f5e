"""The network and the VAE of a diffusers pipeline, and the shape of the noise they start from."""

from __future__ import annotations

from typing import Any

from torch import nn

from latentebm.checks import fail

__all__ = ["noise_shape", "parts_of"]

OTHERS = "use WrappedModel(...)"


def parts_of(pipeline_or_unet: Any) -> tuple[nn.Module, nn.Module | None]:
    """The network that takes noise and time, and the VAE that decodes what it makes, if there is one.

    Example:
        >>> parts_of("a pipeline")
        Traceback (most recent call last):
        ValueError: pipeline_or_unet: expected a pipeline with unet or transformer, or that network, got str; use ...
    """
    found = next((n for k in ("unet", "transformer") if (n := getattr(pipeline_or_unet, k, None)) is not None), None)
    net, vae = (pipeline_or_unet, None) if found is None else (found, getattr(pipeline_or_unet, "vae", None))
    if not isinstance(net, nn.Module) or not hasattr(net, "config"):
        expected = "a pipeline with unet or transformer, or that network"
        raise fail("pipeline_or_unet", expected, type(net).__name__, OTHERS)
    if any(getattr(net.config, name, None) is not None for name in ("num_class_embeds", "class_embed_type")):
        fix = "use WrappedModel(..., labels=[...]), which draws the class with the code"
        raise fail("pipeline_or_unet", "a network of noise, time and text", f"{type(net).__name__} of classes", fix)
    return net, vae


def noise_shape(net: Any) -> tuple[int, ...]:
    """Shape (C, H, W) of the noise that a network was made for."""
    size = net.config.sample_size
    if size is None:
        fix = "set it when the network is made, for example UNet2DModel(sample_size=32)"
        raise fail("pipeline_or_unet", "a network with a sample_size", None, fix)
    return (net.config.in_channels, *((size, size) if isinstance(size, int) else tuple(size)))
