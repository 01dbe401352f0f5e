"""A VAE that is told the class of each image: an oracle for comparisons, since it needs every label."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_event, check_int, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.models.vae import VAE

__all__ = ["ConditionalVAE"]


class ConditionalVAE(VAE):
    r"""VAE whose decoder sees the class, so that classes are generated in any shares asked for.

    .. math:: p(x|y) = \int p(x|z, y)\, N(z; 0, I)\, dz

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et al., 2015),
        https://papers.nips.cc/paper/5775

    Example:
        >>> vae = ConditionalVAE((1, 8, 8), 2, n_classes=3, width=16)
        >>> vae.decode(torch.zeros(4, 2), labels=torch.tensor([0, 1, 2, 0])).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, data_shape: tuple[int, ...], latent_dim: int, *, n_classes: int, **settings: Any) -> None:
        super().__init__(data_shape, latent_dim, **settings)
        self.n_classes = check_int("n_classes", n_classes)
        self.decoder = self.network.decoder(latent_dim + n_classes, self.data_shape)

    def logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decoder output (N, *data_shape) of codes (N, d) and their classes (N,)."""
        return self.decoder(self._inputs(z, labels))

    @torch.no_grad()
    def decode(self, z: Tensor, *, chunk: int | None = None, labels: Tensor | None = None) -> Tensor:
        """Mean images (N, *data_shape) of codes (N, d) and their classes (N,), without gradient."""
        check_event("z", z, (self.latent_dim,))
        size = chunk or chunk_size(math.prod(self.data_shape), z.device)
        return in_chunks(lambda part: self.likelihood.mean(self.decoder(part)), self._inputs(z, labels), size)

    def _inputs(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise fail("labels", "the class of each code", "None", "pass labels")
        return torch.cat([z, F.one_hot(labels, self.n_classes).to(z)], 1)
