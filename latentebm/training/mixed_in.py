"""A few images mixed into every batch of the many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_number, fail
from latentebm.data.augment import AUGMENTATIONS, augmented
from latentebm.rng import integers

__all__ = ["MixedIn"]


@dataclass(frozen=True, kw_only=True)
class MixedIn:
    r"""Reference images that fill a share of every batch, each time changed a little.

    .. math:: \max_\theta\; (1 - s)\, \mathrm{mean}_{i \in biased}\, \mathrm{ELBO}_\theta(x_i)
              + s\, \mathrm{mean}_{j \in ref}\, \mathrm{ELBO}_\theta(T x_j)

    with a fresh random change T at every use: a few images shown hundreds of times as they are would be learned by
    heart.

    Attributes:
        images: (M, C, H, W), uint8.
        share: s, of each batch, in [0, 1).
        augment: name in `AUGMENTATIONS`.

    Raises:
        ValueError: no images, a share outside its range, or an unknown augmentation.

    Example:
        >>> mixed = MixedIn(images=torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), share=0.25)
        >>> x, weight = mixed.into(torch.zeros(8, 1, 4, 4), torch.full((8,), 3.0), torch.Generator())
        >>> x.amax((1, 2, 3)), weight
        (tensor([0., 0., 0., 0., 0., 0., 1., 1.]), tensor([3., 3., 3., 3., 3., 3., 1., 1.]))
    """

    images: Tensor
    share: float
    augment: str = "none"

    def __post_init__(self) -> None:
        check_number("reference_share", self.share, low=0, high=0.99)
        check_choice("augment", self.augment, AUGMENTATIONS)
        if not len(self.images):
            raise fail("reference", "at least one image", 0, "pass more reference images")

    def into(self, x: Tensor, weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch (N, C, H, W) in [0, 1] and its weights (N,), the last rows of both replaced."""
        n = round(self.share * len(x))
        rows = integers(len(self.images), (n,), generator, self.images.device)
        own = augmented(self.images[rows].to(x.device).float() / 255, self.augment, generator=generator)
        kept = len(x) - n
        return torch.cat([x[:kept], own]), torch.cat([weight[:kept], torch.ones_like(weight[kept:])])
