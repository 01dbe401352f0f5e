"""What reads batches of stored images: rows of a mapped array by a thread, other items by worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentebm.checks import fail
from latentebm.data.pixels import item_label, item_pixels

__all__ = ["Batch", "Checked", "MappedArray", "ReadAhead", "Reader", "Rows"]

AHEAD = 2  # batches of an array read before they are asked for


class Batch(NamedTuple):
    """Images (n, C, H, W), uint8, that were read together, and their labels (n,), −1 where there are none."""

    images: Tensor
    labels: Tensor


class Rows(Dataset[Any]):
    """The rows of an array or tensor (N, …), as a map-style Dataset.

    Example:
        >>> len(Rows(torch.zeros(5, 8, 8))), Rows(torch.zeros(5, 8, 8))[2].shape
        (5, torch.Size([8, 8]))
    """

    def __init__(self, array: np.ndarray | Tensor) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row: int) -> np.ndarray | Tensor:
        item: np.ndarray | Tensor = self.array[row]
        return item


class MappedArray(Dataset[np.ndarray]):
    """The rows of an array (N, …) that lies in a file, read without mapping it: no page of it counts to the process.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "x.npy")
        >>> np.save(file, np.arange(6, dtype=np.uint8).reshape(3, 2))
        >>> MappedArray(np.load(file, mmap_mode="r")).__getitems__([2, 0]).tolist()
        [[4, 5], [0, 1]]
    """

    def __init__(self, array: np.memmap) -> None:
        self.file, self.offset, self.dtype, self.shape = str(array.filename), array.offset, array.dtype, array.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> np.ndarray:
        item: np.ndarray = self.__getitems__([row])[0]
        return item

    def __getitems__(self, rows: Sequence[int]) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        with open(self.file, "rb", buffering=0) as stream:
            for row, place in zip(rows, found, strict=True):
                stream.seek(self.offset + row * place.nbytes)
                if stream.readinto(place.data) != place.nbytes:  # a file that was cut since
                    raise ValueError(f"{self.file}: expected {len(self)} rows, got fewer; write it again")
        return found


@dataclass(frozen=True)
class Checked:
    """The batches of a loader; what reading found wrong is raised here, in the process of the caller."""

    loader: Iterable[Any]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            yield batch


@dataclass(frozen=True)
class ReadAhead:
    """Batches that a thread reads while the caller works on those before."""

    reader: Reader
    batches: Iterable[list[int]]

    def __iter__(self) -> Iterator[Batch | str]:
        with ThreadPoolExecutor(1) as thread:
            ahead: deque[Future[Batch | str]] = deque()
            for rows in self.batches:
                ahead.append(thread.submit(self.reader.__getitems__, rows))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            yield from (batch.result() for batch in ahead)


@dataclass(frozen=True)
class Reader(Dataset[Any]):
    """What a worker process runs: it reads a batch of items, or says what is wrong with the first wrong one."""

    dataset: Any
    item: tuple[int, ...]
    rows: Tensor | None
    name: str

    def __len__(self) -> int:
        return len(self.dataset) if self.rows is None else len(self.rows)

    @property
    def by_row(self) -> bool:
        """Whether rows are copied as they are: no work that a process of its own would pay for."""
        return isinstance(self.dataset, MappedArray) and self.dataset.dtype == np.uint8

    def __getitems__(self, numbers: Sequence[int]) -> Batch | str:
        rows = [int(n) for n in (numbers if self.rows is None else self.rows[list(numbers)])]
        try:
            if self.by_row:
                images = torch.from_numpy(self.dataset.__getitems__(rows)).reshape(-1, *self.item)
                return Batch(images, torch.full((len(rows),), -1))
            read = [self._one(row) for row in rows]
        except ValueError as error:
            return str(error)
        return Batch(torch.stack([image for image, _ in read]), torch.tensor([label for _, label in read]))

    def image(self, row: int) -> tuple[Tensor, int]:
        """An item's image of any shape and its label."""
        name = f"{self.name}[{row}]"
        try:
            item = self.dataset[row]
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            raise fail(name, "an item that can be read", got, "repair it or leave it out") from error
        return item_pixels(item, name), item_label(item, name)

    def _one(self, row: int) -> tuple[Tensor, int]:
        image, label = self.image(row)
        if self.item[0] == 1 and bool((image[:1] == image).all()):
            image = image[:1]  # a grey image, held in three channels
        if tuple(image.shape) != self.item:
            expected = f"shape {self.item}, as the first item has"
            fix = "bring all images to one size and number of channels"
            raise fail(f"{self.name}[{row}]", expected, tuple(image.shape), fix)
        return image, label
