"""Images and their labels, the images in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from latentebm.data.stored import StoredImages

__all__ = ["Images", "Labelled", "StoredSet"]

P = TypeVar("P", Tensor, StoredImages)
L = TypeVar("L", bound="Labelled[Any]")


@dataclass(frozen=True)
class Labelled(Generic[P]):
    """Images (N, C, H, W), uint8, and, where known, the class index of each, (N,), and the names of the classes."""

    images: P
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self: L, rows: Tensor) -> L:
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, images=self.images[rows], labels=labels)

    def counts(self) -> list[int]:
        """Images per class, in the order of `class_names`; empty without labels."""
        return [] if self.labels is None else torch.bincount(self.labels, minlength=len(self.class_names)).tolist()


@dataclass(frozen=True)
class Images(Labelled[Tensor]):
    """Images in memory and, where known, their labels.

    Example:
        >>> data = Images(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"))
        >>> data.float01().mean(), data.counts()
        (tensor(0.2000), [1, 2])
    """

    def float01(self) -> Tensor:
        """Pixels as float32 in [0, 1], (N, C, H, W)."""
        return self.images.float() / 255

    def whole(self, *, limited: bool = True) -> Images:
        """The images themselves, however many: they are in memory already."""
        return self

    def part(self, generator: torch.Generator) -> Images:
        """The images themselves: they are in memory already."""
        return self


@dataclass(frozen=True)
class StoredSet(Labelled[StoredImages]):
    """Images that stay on disk and, where known, their labels.

    Example:
        >>> from latentebm.data.reading import Rows
        >>> images = StoredImages(Rows(torch.zeros(5, 8, 8, dtype=torch.uint8)), (1, 8, 8), name="data")
        >>> data = StoredSet(images, torch.tensor([0, 1, 1, 0, 1]), ("cat", "dog"))
        >>> data[torch.tensor([1, 2])].whole().images.shape, data.counts()
        (torch.Size([2, 1, 8, 8]), [2, 3])
    """

    def whole(self, *, limited: bool = True) -> Images:
        """All of the images, read into memory; if `limited`, up to 256 MiB of them.

        Raises:
            ValueError: they take more, or one cannot be read.
        """
        return Images(self.images.whole(limited=limited), self.labels, self.class_names)

    def part(self, generator: torch.Generator) -> Images:
        """At most 32 MiB of the images, chosen at random, read into memory."""
        return self[self.images.some(generator)].whole(limited=False)
