"""Minibatches of tensors in memory, without workers, or of images on disk, with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.data.stored import OwnRows, StoredImages, StoredMinibatches, whole
from latentebm.rng import permutation

__all__ = ["Minibatches", "minibatches"]


class Minibatches:
    """Shuffled minibatches of tensors (N, …) of one length over several epochs, reproducible from a generator.

    The last, smaller batch of an epoch is dropped unless it is the only one: batches of one size keep the noise of
    the gradient, and the speed, steady.

    Example:
        >>> batches = Minibatches(torch.arange(6), batch_size=3, epochs=2, generator=torch.Generator().manual_seed(0))
        >>> len(batches), sorted(torch.cat([b for (b,) in batches]).tolist())
        (4, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    """

    def __init__(
        self, *tensors: Tensor, batch_size: int, epochs: int, generator: torch.Generator, own: OwnRows = whole
    ) -> None:
        lengths = {len(t) for t in tensors}
        if len(lengths) != 1 or 0 in lengths:
            raise fail("tensors", "one common length of at least 1", sorted(lengths), "pass aligned, non-empty tensors")
        self.tensors = tensors
        self.size = lengths.pop()
        self.batch_size = min(check_int("batch_size", batch_size), self.size)
        self.epochs = check_int("epochs", epochs)
        self.generator, self.own = generator, own
        self.used = self.resumed = 0
        self.order: Tensor | None = None  # of the present epoch

    def __len__(self) -> int:
        return self.epochs * (self.size // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        first, self.resumed = self.resumed, 0
        for used in range(first, len(self)):
            row = used % (self.size // self.batch_size) * self.batch_size
            if row == 0 or self.order is None:
                self.order = permutation(self.size, self.generator, self.tensors[0].device)
            self.used, rows = used + 1, self.order[row : row + self.batch_size]
            yield tuple(t[self.own(rows)] for t in self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is."""
        return {"used": self.used, "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from where another was."""
        self.used = self.resumed = state["used"]
        self.order = state["order"]


def minibatches(
    images: Tensor | StoredImages,
    *tensors: Tensor,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    device: torch.device | str,
    own: OwnRows = whole,
) -> Minibatches | StoredMinibatches:
    """Shuffled minibatches of images (N, C, H, W), wherever they are, and of tensors (N, …) beside them, on a device.

    Of each batch's row numbers only those that `own` picks are read.

    Example:
        >>> images, rng = torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.Generator()
        >>> next(iter(minibatches(images, batch_size=2, epochs=1, generator=rng, device="cpu")))[0].shape
        torch.Size([2, 1, 4, 4])
    """
    beside = [t.to(device) for t in tensors]
    sizes: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "generator": generator, "own": own}
    if isinstance(images, StoredImages):
        return StoredMinibatches(images, *beside, device=device, **sizes)
    return Minibatches(images.to(device), *beside, **sizes)
