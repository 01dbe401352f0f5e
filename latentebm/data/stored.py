"""Images that stay on disk, or where a map-style Dataset has them, read batch by batch by worker processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from latentebm.checks import check_int, fail
from latentebm.data.reading import Batch, Checked, ReadAhead, Reader
from latentebm.rng import permutation

__all__ = ["HELD", "OwnRows", "StoredImages", "StoredMinibatches", "fits", "whole"]

HELD = 2**28  # bytes of pixels up to which images are read into memory
PART = 2**25  # bytes of the random part that is held of images on disk
WORKERS, FEW = 4, 2_048  # most reading processes; up to FEW images they are read without
READ = 256  # images read at once
OwnRows = Callable[[Tensor], Tensor]  # from the row numbers of a batch to those that are read


def fits(shape: Sequence[int]) -> bool:
    """Whether as many uint8 pixels are held in memory: up to 256 MiB of them.

    Example:
        >>> fits((60_000, 1, 28, 28)), fits((200_000, 3, 64, 64))
        (True, False)
    """
    return prod(shape) <= HELD


@dataclass(frozen=True)
class StoredImages:
    """Images of one shape (C, H, W) in a map-style Dataset, or those of its items that `rows` picks, read as uint8.

    Arguments:
        dataset: its items are images, pairs of image and label, or mappings with an ``image``.
        item: shape (C, H, W) that every image has.
        rows: of the dataset, (N,); None takes all.
        name: what errors call the dataset.

    Example:
        >>> from latentebm.data.reading import Rows
        >>> stored = StoredImages(Rows(torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)), (1, 2, 2), name="data")
        >>> stored.shape, stored[torch.tensor([2])].whole().tolist()
        (torch.Size([3, 1, 2, 2]), [[[[8, 9], [10, 11]]]])
    """

    dataset: Any
    item: tuple[int, ...]
    rows: Tensor | None = None
    name: str = "data"

    def __len__(self) -> int:
        return len(self.dataset) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """Shape (N, C, H, W) of all images together."""
        return torch.Size((len(self), *self.item))

    def __getitem__(self, rows: Tensor) -> StoredImages:
        """The images of some rows (n,), still on disk."""
        return replace(self, rows=rows.cpu() if self.rows is None else self.rows[rows.cpu()])

    def first(self) -> Tensor:
        """The first image (C, H, W), uint8, of whatever shape."""
        return Reader(self.dataset, (), self.rows, self.name).image(0 if self.rows is None else int(self.rows[0]))[0]

    def read(self, batches: Iterable[list[int]]) -> Iterable[Batch]:
        """The images of each batch of row numbers, in that order, read ahead: arrays by a thread, else by processes.

        Raises:
            ValueError: an item that cannot be read or has another shape; the item is named.
        """
        workers = min(WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        if len(self) <= FEW or multiprocessing.current_process().daemon:  # a daemon may have no children
            workers = 0
        reader = Reader(self.dataset, self.item, self.rows, self.name)
        if reader.by_row:
            return Checked(ReadAhead(reader, batches))
        return Checked(
            DataLoader(
                reader,
                batch_sampler=batches,
                num_workers=workers,
                collate_fn=_as_read,
                persistent_workers=workers > 0,
                generator=torch.Generator(),  # else each pass would draw a number from torch's global stream
            )
        )

    def in_order(self) -> Iterable[Batch]:
        """All images, in order."""
        return self.read([list(range(i, min(i + READ, len(self)))) for i in range(0, len(self), READ)])

    def some(self, generator: torch.Generator) -> Tensor:
        """Row numbers of at most 32 MiB of images, at least two, chosen at random and in order."""
        most = max(2, PART // prod(self.item))
        return permutation(len(self), generator, "cpu")[:most].sort().values

    def whole(self, *, limited: bool = True) -> Tensor:
        """All images (N, C, H, W), uint8, in memory: if `limited`, up to 256 MiB of them.

        Raises:
            ValueError: they take more, or an item cannot be read.
        """
        if limited and not fits(self.shape):
            expected = f"at most {HELD / 2**20:,.0f} MiB of images, which are held in memory"
            raise fail(self.name, expected, f"{prod(self.shape) / 2**20:,.0f} MiB", "take fewer images")
        return torch.cat([torch.empty(0, *self.item, dtype=torch.uint8), *(b.images for b in self.in_order())])


def _as_read(batch: Any) -> Any:
    return batch


class _Order:
    """The batches of one pass; a loader asks for them more than once."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def whole(rows: Tensor) -> Tensor:
    """All rows of a batch."""
    return rows


class StoredMinibatches:
    """Shuffled minibatches of images on disk and of tensors (N, …) beside them: those of `Minibatches`, streamed.

    From the same generator the batches are the same; images come as uint8 on the tensors' device, or on `device`.

    Example:
        >>> from latentebm.data.reading import Rows
        >>> images = StoredImages(Rows(torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1)), (1, 1, 1))
        >>> batches = StoredMinibatches(images, batch_size=3, epochs=2, generator=torch.Generator().manual_seed(0))
        >>> len(batches), sorted(torch.cat([b for (b,) in batches]).flatten().tolist())
        (4, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    """

    def __init__(
        self,
        images: StoredImages,
        *tensors: Tensor,
        batch_size: int,
        epochs: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        own: OwnRows = whole,
    ) -> None:
        if {len(t) for t in tensors} - {len(images)} or not len(images):
            got = [len(images), *(len(t) for t in tensors)]
            raise fail("tensors", "one common length of at least 1", got, "pass aligned, non-empty tensors")
        self.images, self.tensors, self.device = images, tensors, device
        self.batch_size = min(check_int("batch_size", batch_size), len(images))
        self.epochs, self.generator, self.own = check_int("epochs", epochs), generator, own
        self.used = self.resumed = 0
        self.order: Tensor | None = None  # of the present epoch

    def __len__(self) -> int:
        return self.epochs * (len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order, steps = _Order(), len(self.images) // self.batch_size
        loader, (first, self.resumed) = self.images.read(order), (self.resumed, 0)
        for epoch in range(first // steps, self.epochs):
            begun = max(first - epoch * steps, 0)
            if begun == 0 or self.order is None:
                self.order = permutation(len(self.images), self.generator, "cpu")
            picked = [self.own(rows) for rows in self.order.split(self.batch_size)[begun:steps]]
            order.batches = [rows.tolist() for rows in picked]
            for i, (rows, batch) in enumerate(zip(picked, loader, strict=True)):
                self.used = epoch * steps + begun + i + 1
                tensors = (t[rows.to(t.device)] for t in self.tensors)
                yield (batch.images.to(self.device, non_blocking=True), *tensors)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is."""
        return {"used": self.used, "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from where another was."""
        self.used = self.resumed = state["used"]
        self.order = state["order"]
