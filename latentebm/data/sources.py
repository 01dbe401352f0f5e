"""Where images that do not fit into memory come from: a Dataset, a mapped array, or the files of a folder."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentebm.checks import fail
from latentebm.data.labelled import Images, StoredSet
from latentebm.data.pixels import as_uint8, rgb_file
from latentebm.data.reading import MappedArray, Rows
from latentebm.data.stored import StoredImages, fits

__all__ = ["FileImages", "is_dataset", "open_array", "open_dataset", "saved_dataset"]


class FileImages(Dataset[tuple[Tensor, int]]):
    """Image files and the label of each, −1 for none; resized to one height and width if `side` is given."""

    def __init__(self, files: Sequence[str], labels: Sequence[int], side: int | None = None) -> None:
        # Arrays, not lists: worker processes then share one copy, which counting references would part.
        self.files, self.labels = np.array(files, dtype=bytes), np.array(labels, dtype=np.int64)
        self.side = side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = rgb_file(self.files[row].decode())
        if self.side is not None:
            from torchvision.transforms.functional import resize  # here, since torchvision takes a second

            image = resize(image, [self.side, self.side], antialias=True)
        return image, int(self.labels[row])


def is_dataset(data: Any) -> bool:
    """Whether something is a Dataset to be read item by item: one of torch's, or what is indexed like one.

    Example:
        >>> is_dataset(Rows(torch.zeros(2, 4, 4))), is_dataset([np.zeros((4, 4))]), is_dataset(np.zeros((2, 4, 4)))
        (True, False, False)
    """
    if isinstance(data, Dataset):
        return True
    plain = isinstance(data, Tensor | np.ndarray | list | tuple | str | dict) or hasattr(data, "__array__")
    return hasattr(data, "__getitem__") and not plain


def open_dataset(dataset: Any, name: str = "data") -> Images | StoredSet:
    """The images of a map-style Dataset: in memory up to 256 MiB, else to be read batch by batch.

    Its items are images, pairs of image and label, or mappings with an ``image`` and perhaps a ``label``, as those of
    Hugging Face's datasets; images are tensors, arrays or PIL's. All are read once, so that a wrong one is known first.

    Raises:
        ValueError: a Dataset without length, without items, or with an item that is no image of the first's shape.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1]))
        >>> open_dataset(pairs).counts()
        [1, 2]
    """
    if not hasattr(dataset, "__getitem__") or isinstance(dataset, torch.utils.data.IterableDataset):
        fix = "give it __len__ and __getitem__"
        raise fail(name, "a map-style Dataset", f"{type(dataset).__name__}, which is read in order only", fix)
    try:
        n = len(dataset)
    except (TypeError, NotImplementedError):
        got, fix = f"{type(dataset).__name__} without one", "give it a __len__, the number of its items"
        raise fail(name, "a Dataset with a length", got, fix) from None
    if n < 1:
        raise fail(name, "at least 1 item", n, "pass a Dataset that is not empty")
    item = tuple(StoredImages(dataset, (), name=name).first().shape)
    return _scanned(StoredImages(dataset, item, name=name))


def _scanned(stored: StoredImages) -> Images | StoredSet:
    """What is known of images once all have been read: their labels, and whether colour files are all grey."""
    held, labels, grey = fits(stored.shape), [], isinstance(stored.dataset, FileImages)
    parts = []
    for batch in stored.in_order():
        labels.append(batch.labels)
        parts += [batch.images] if held else []
        grey = grey and bool((batch.images[:, :1] == batch.images).all())
    y = torch.cat(labels)
    if bool((y < 0).any()) and bool((y >= 0).any()):
        row = int((y < 0).nonzero()[0])
        raise fail(f"{stored.name}[{row}]", "a label, as other items have", "none", "label all items or none")
    known, names = (None, ()) if bool((y < 0).any()) else (y, _names(stored.dataset, y))
    if held:
        images = torch.cat(parts)
        return Images(images[:, :1] if grey else images, known, names)
    item = (1, *stored.item[1:]) if grey else stored.item
    return StoredSet(StoredImages(stored.dataset, item, name=stored.name), known, names)


def _names(dataset: Any, labels: Tensor) -> tuple[str, ...]:
    """Names of the classes, where a Dataset of torchvision or Hugging Face has them; else their numbers."""
    feature = (getattr(dataset, "features", None) or {}).get("label") if hasattr(dataset, "features") else None
    names = getattr(feature, "names", None) or getattr(dataset, "classes", None)
    count = int(labels.max()) + 1
    return tuple(map(str, names)) if names is not None and len(names) >= count else tuple(map(str, range(count)))


def open_array(array: np.memmap, name: str = "data") -> Images | StoredSet:
    """A mapped array of images (N, H, W) or (N, C, H, W): in memory up to 256 MiB, else left where it is.

    Raises:
        ValueError: an array that `as_uint8` would not take; pixels other than uint8 are all read to know it.
    """
    form = as_uint8(np.array(array[:1]), name)
    if fits(array.shape):
        return Images(as_uint8(np.array(array), name))
    in_rows = isinstance(array.base, mmap.mmap) and array.flags.c_contiguous  # a view's offset is not its own
    dataset = MappedArray(array) if in_rows else Rows(array)
    stored = StoredImages(dataset, tuple(form.shape[1:]), name=name)
    return StoredSet(stored) if array.dtype == np.uint8 else _scanned(stored)


def saved_dataset(folder: Path) -> Any:
    """A dataset that Hugging Face's ``save_to_disk`` wrote, or None where the folder is none.

    Raises:
        ImportError: it is one, and `datasets` is not installed.
    """
    if not all((folder / name).is_file() for name in ("state.json", "dataset_info.json")):
        return None
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ImportError("datasets: expected for a dataset saved to disk, not found; pip install datasets") from error
    return load_from_disk(str(folder))
