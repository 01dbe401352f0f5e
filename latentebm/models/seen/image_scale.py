"""On which scale images are: [0, 1], or [−1, 1] as most generators make them."""

from __future__ import annotations

import torch
from torch import Tensor

from latentebm.chunks import in_chunks
from latentebm.models.latent_model import LatentModel

__all__ = ["lower_end", "scale_of", "to_unit"]

BELOW, DRAWN, IMAGES = -0.2, 64, 4  # some decoders of [0, 1] overshoot it; draws that tell; dimensions of a batch


def lower_end(images: Tensor) -> float:
    """The lower end of the scale that images are on, 0 or −1.

    Example:
        >>> lower_end(torch.tensor([-0.02, 1.0])), lower_end(torch.tensor([-0.9, 1.0]))
        (0.0, -1.0)
    """
    return -1.0 if float(images.min()) < BELOW else 0.0


@torch.no_grad()
def scale_of(model: LatentModel) -> float:
    """The lower end of the scale that a model's draws are on, read from 64 of them, always the same ones.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> scale_of(WrappedModel(torch.nn.Tanh(), 2)), scale_of(WrappedModel(torch.nn.Sigmoid(), 2))
        (-1.0, 0.0)
    """
    like = next(model.parameters(), torch.empty(0)) if isinstance(model, torch.nn.Module) else torch.empty(0)
    codes = torch.randn(DRAWN, model.latent_dim, generator=torch.Generator().manual_seed(0)).to(like)
    return lower_end(in_chunks(model.decode, codes))


def to_unit(x: Tensor, low: float) -> Tensor:
    """Images (N, C, H, W) in [0, 1] of those on a scale that starts at −1; anything else as it is.

    Example:
        >>> to_unit(torch.tensor([-1.0, 0.0, 1.2]).view(1, 1, 1, 3), -1.0).flatten()
        tensor([0.0000, 0.5000, 1.0000])
    """
    return (x / 2 + 0.5).clamp(0, 1) if x.ndim == IMAGES and low < 0 else x
