"""Labelled images by name or path: MNIST, Fashion-MNIST, an .npz or .npy file, or a folder of images."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.data.formats.array_files import mapped_npy, mapped_npz, read_npz
from latentebm.data.image_folder import check_side, open_folder, resize_all
from latentebm.data.labelled import Images, StoredSet
from latentebm.data.pixels import as_uint8, plain
from latentebm.data.shipped import SHIPPED, UNPACKED, shipped_file
from latentebm.data.sources import (
    is_dataset,
    open_array,
    open_dataset,
    saved_dataset,
)
from latentebm.data.stored import StoredImages, fits
from latentebm.files import sha256, write_atomic

__all__ = ["Images", "as_data", "as_images", "load_images", "load_npz", "open_images"]

TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # our names and its classes, imported when used
MOST_LABEL, LABELS = 999, "whole numbers in [0, 999]"


def as_images(images: np.ndarray | Tensor, labels: np.ndarray | Tensor | None = None, name: str = "images") -> Images:
    """Check arrays of images and labels and hold them as uint8; errors call them `name`.

    Raises:
        ValueError: images that are not uint8, or float in [0, 1], of shape (N, H, W) or (N, C, H, W) with C of 1 or 3;
            labels that are not whole numbers (N,) in [0, 999].

    Example:
        >>> as_images(np.ones((2, 4, 4))).images.max()
        tensor(255, dtype=torch.uint8)
    """
    x = as_uint8(images, name)
    if labels is None:
        return Images(x)
    names, y = _numbered(labels, name)
    y = _labels(name, y, len(x))
    return Images(x, y, names or tuple(str(k) for k in range(int(y.max()) + 1 if len(y) else 0)))


def _numbered(labels: Any, name: str) -> tuple[tuple[str, ...], Tensor]:
    """Names and indices of text labels; other labels as they are, without names."""
    unsigned = (torch.uint16, torch.uint32, torch.uint64)  # tensors of which know no least or largest
    if isinstance(labels, Tensor) and labels.dtype not in unsigned:
        return (), labels.long() if labels.dtype == torch.bool else labels
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    array = np.array(array.tolist()) if array.dtype.kind == "O" else array  # text or numbers in a column of pandas
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "U":
        names, index = np.unique(array, return_inverse=True)
        return tuple(map(str, names)), torch.as_tensor(index.reshape(array.shape))
    if array.dtype.kind not in "biufc":
        raise fail("labels", "whole numbers or text", f"{array.dtype}", "number the classes from 0")
    if array.dtype.kind == "u" and array.size and array.max() > MOST_LABEL:  # before int64, in which they may wrap
        raise fail(f"{name} labels", LABELS, f"[{array.min()}, {array.max()}]", "number the classes from 0")
    return (), torch.as_tensor(plain(array.astype(np.int64) if array.dtype.kind == "b" else array))


def _labels(name: str, y: Tensor, n: int) -> Tensor:
    if y.shape != (n,):
        raise fail(f"{name} labels", f"shape ({n},), one per image", tuple(y.shape), "pass one label per image")
    fractional = y.is_floating_point() or y.is_complex()
    if fractional or (n and (y.min() < 0 or y.max() > MOST_LABEL)):
        got = str(y.dtype) if fractional else f"[{int(y.min())}, {int(y.max())}]"
        raise fail(f"{name} labels", LABELS, got, "number the classes from 0")
    return y.long()


def load_npz(path: Path | str, name: str = "data") -> Images:
    """Read `images` and optional `labels` of an .npz file, as `as_images` takes them, without unpickling anything."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: expected a file at {path}, found none; check the path")
    arrays = read_npz(path, name)
    if "images" not in arrays:
        got = ", ".join(arrays) or "no arrays"
        raise fail(name, "an array called 'images'", got, "save it with numpy.savez(path, images=…)")
    return as_images(arrays["images"], arrays.get("labels"), f"{name} {path}")


def as_data(images: Any, name: str = "images") -> Images | StoredSet:
    """Arrays, tensors, mapped arrays and Datasets of images: in memory, or, above 256 MiB, where they are stored.

    Raises:
        ValueError: see `as_images`, `open_dataset` and `open_array`.

    Example:
        >>> len(as_data(np.ones((2, 4, 4)))), len(as_data(torch.utils.data.TensorDataset(torch.ones(3, 4, 4))))
        (2, 3)
    """
    if isinstance(images, Images | StoredSet):
        return images
    if isinstance(images, StoredImages):
        return StoredSet(images)
    if isinstance(images, np.memmap):
        return open_array(images, name)
    return open_dataset(images, name) if is_dataset(images) else as_images(images, name=name)


def load_images(
    data: str, *, root: Path | str | None = None, train: bool = True, resize: int | None = None, name: str = "data"
) -> Images:  # fmt: skip
    """Load ``mnist``, ``fashion-mnist``, an .npz or .npy file, or a folder of images into memory.

    Arguments:
        data: the name or the path.
        root: where torchvision's files are or go; None for ``LATENTEBM_DATA``, then the shipped MNIST.
        train: training or test part; your own data have one part only.
        resize: height and width that all images are resized to, without regard to their shape; None leaves them.
        name: what errors call the data.

    Example:
        >>> len(load_images("mnist", train=False))
        10000
    """
    return open_images(data, root=root, train=train, resize=resize, name=name).whole(limited=False)


def open_images(
    data: str, *, root: Path | str | None = None, train: bool = True, resize: int | None = None, name: str = "data"
) -> Images | StoredSet:  # fmt: skip
    """What `load_images` loads, left on disk above 256 MiB: mapped arrays, image files and saved Datasets.

    A compressed .npz is always read whole. A folder holds one folder of images per class, or images alone, or is what
    ``save_to_disk`` of Hugging Face's datasets wrote.

    Example:
        >>> open_images("mnist", train=False).counts()[:3]
        [980, 1135, 1032]
    """
    path = Path(data)
    try:
        folder = data not in TORCHVISION and path.is_dir()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise fail(name, "a path", f"{data[:80]!r} ({error})"[:300], "check the path") from None
    if folder and saved_dataset(path) is None:
        return open_folder(path, name, check_side(resize))
    return resize_all(_opened(data, root, train, name), check_side(resize), name)


def _opened(data: str, root: Path | str | None, train: bool, name: str) -> Images | StoredSet:
    """Everything but folders of image files, at its own size."""
    if data in TORCHVISION:
        return _torchvision(data, root, train)
    path = Path(data)
    if path.is_dir():
        return open_dataset(saved_dataset(path), name)
    if path.suffix == ".npy" and path.is_file():
        return open_array(mapped_npy(path, name), f"{name} {path}")
    if path.suffix == ".npz" or path.is_file():
        return _open_npz(path, name)
    expected = "mnist, fashion-mnist, an .npz file or a folder of class folders"
    raise FileNotFoundError(f"{name}: expected {expected}, got {data!r}, which does not exist; check the path")


def _open_npz(path: Path, name: str) -> Images | StoredSet:
    """An archive's images, mapped where they are large and not compressed."""
    mapped = mapped_npz(path) if path.is_file() else None
    if mapped is None or fits(mapped.shape):
        return load_npz(path, name)
    data = open_array(mapped, f"{name} {path}")
    labels = read_npz(path, name, ["labels"]).get("labels")
    if labels is None:
        return data
    known = as_images(np.zeros((len(data), 1, 1), np.uint8), labels, f"{name} {path}")  # checks the labels
    return replace(data, labels=known.labels, class_names=known.class_names)


def _torchvision(data: str, root: Path | str | None, train: bool) -> Images:
    root = root or os.environ.get("LATENTEBM_DATA")
    if root is None and data == "mnist":
        return _shipped_mnist("train" if train else "t10k")
    from torchvision import datasets

    folder = Path(root) if root is not None else _cache()
    try:
        dataset = getattr(datasets, TORCHVISION[data])(str(folder), train=train, download=True)
    except (RuntimeError, OSError) as error:
        got = f"data: expected {data} in {folder} or a network to download it, got {error}"
        raise FileNotFoundError(f"{got}; set LATENTEBM_DATA, or data_root, to a folder that has it") from error
    return Images(dataset.data.unsqueeze(1), dataset.targets.long(), tuple(map(str, dataset.classes)))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentebm"


def _shipped_mnist(part: str) -> Images:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images = _unpacked(f"MNIST/raw/{part}-images-idx3-ubyte.gz", read_image_file)
    labels = _unpacked(f"MNIST/raw/{part}-labels-idx1-ubyte.gz", read_label_file)
    return Images(images.unsqueeze(1), labels, tuple(map(str, range(10))))


def _unpacked(name: str, read: Callable[[str], Tensor]) -> Tensor:
    """What a shipped file holds, unpacked once under its digest, or each time where no cache can be written."""
    target = _cache() / SHIPPED[name][:16] / Path(name).stem
    try:
        if not target.is_file() or sha256(target) != UNPACKED[name]:
            write_atomic(target, lambda p: p.write_bytes(gzip.decompress(shipped_file(name).read_bytes())))
        return read(str(target))
    except OSError:
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(gzip.decompress(shipped_file(name).read_bytes()))
            stream.flush()
            return read(stream.name)
