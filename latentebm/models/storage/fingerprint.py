"""What tells one trained model from another: its class, its weights, and the settings that decide what it decodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.models.latent_model import LatentModel

__all__ = ["fingerprint"]


def fingerprint(model: LatentModel) -> dict[str, Any]:
    """Class, length of the code, settings and SHA-256 of a model's weights: names, shapes, types and bytes.

    The settings are what the model's ``settings`` hold, such as a diffusion model's prompt and steps. Of a plain
    function nothing but the class can be told; what it decodes to must be compared beside it.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> first, second = (WrappedModel(nn.Linear(2, 3), 2) for _ in range(2))
        >>> fingerprint(first) == fingerprint(first), fingerprint(first) == fingerprint(second)
        (True, False)
    """
    model = getattr(model, "spooled", model)  # data on disk do not make another model
    digest = hashlib.sha256()
    for name, weight in sorted(_weights(model)):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "class": type(model).__name__,
        "latent_dim": int(model.latent_dim),
        "settings": dict(getattr(model, "settings", {})),
        "sha256": digest.hexdigest(),
    }


def _weights(model: object) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers by name: of a module, or of the modules that a plain object holds."""
    if isinstance(model, nn.Module):
        yield from model.state_dict().items()
        return
    for name, value in vars(model).items() if hasattr(model, "__dict__") else ():
        if isinstance(value, nn.Module):
            yield from ((f"{name}.{key}", weight) for key, weight in value.state_dict().items())
