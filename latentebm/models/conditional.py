"""A VAE that is told the class of each image: an oracle for comparisons, since it needs every label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_event, check_int, fail
from latentebm.models.networks import decoder
from latentebm.models.vae import VAE

__all__ = ["ConditionalVAE"]


class ConditionalVAE(VAE):
    r"""VAE whose decoder sees the class: classes are generated in whatever shares are asked for.

    .. math:: p(x|y) = \int p(x|z, y)\, N(z; 0, I)\, dz

    Arguments:
        data_shape: (C, H, W) of the images, pixels in [0, 1].
        latent_dim: length d of the code z.
        n_classes: classes told apart.
        settings: further settings of `VAE`.

    Raises:
        ValueError: an unknown setting's value, or a size below one.

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
        network, width = self.config["network"], self.config["width"]
        self.decoder = decoder(network, latent_dim + n_classes, self.data_shape, width)

    def logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decoder output (N, *data_shape) of codes (N, d) and their classes (N,).

        Raises:
            ValueError: no labels.
        """
        if labels is None:
            raise fail("labels", "the class of each code", "none", "pass labels")
        return self.decoder(torch.cat([z, F.one_hot(labels, self.n_classes).to(z)], 1))

    def decode(self, z: Tensor, *, chunk: int = 8192, labels: Tensor | None = None) -> Tensor:
        """Mean images (N, *data_shape) of codes (N, d) and their classes (N,), without gradient.

        Raises:
            ValueError: no labels, or another code length.
        """
        check_event("z", z, (self.latent_dim,))
        if labels is None:
            raise fail("labels", "the class of each code", "none", "pass labels")
        pairs = zip(z.split(chunk), labels.split(chunk), strict=True)
        with torch.no_grad():
            return torch.cat([self.likelihood.mean(self.logits(u, y)) for u, y in pairs])
