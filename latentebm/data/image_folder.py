"""Folders of image files: one folder per class, or images alone; and images of one size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.data.labelled import Images, StoredSet
from latentebm.data.pixels import UNREADABLE, is_image, rgb_file
from latentebm.data.sources import FileImages, open_dataset
from latentebm.data.stored import fits

__all__ = ["check_side", "open_folder", "resize_all"]


def check_side(side: int | None) -> int | None:
    """Return a height and width to resize to, or None; ValueError for anything below 1."""
    return None if side is None else check_int("resize", side)


def resize_all(data: Images | StoredSet, side: int | None, name: str = "data") -> Images | StoredSet:
    """Images of one height and width; None leaves them as they are.

    Raises:
        ValueError: arrays that are read from the disk batch by batch.

    Example:
        >>> resize_all(Images(torch.zeros(2, 1, 4, 6, dtype=torch.uint8)), 3).images.shape
        torch.Size([2, 1, 3, 3])
    """
    if side is None:
        return data
    if isinstance(data, StoredSet):
        fix = "resize the array itself, or pass a folder of image files"
        raise fail("resize", f"None for a {name} too large for memory", side, fix)
    return replace(data, images=_resized(data.images, side))


def open_folder(path: Path, name: str = "data", side: int | None = None) -> Images | StoredSet:
    """The image files of a folder: left there where all, of the first one's size, would take more than 256 MiB.

    Hidden files and folders are skipped; links are followed.

    Raises:
        ValueError: there are none, or files that cannot be read (all are named), images of several sizes, or a folder
            that links to one that holds it.

    Example:
        >>> import tempfile
        >>> open_folder(Path(tempfile.mkdtemp()))
        Traceback (most recent call last):
        ValueError: data: expected a folder with one folder of images per class, or images alone, got none; add some
    """
    files, labels, names = _listed(path, name)
    if not _held(files, side):
        return replace(open_dataset(FileImages(files, labels, side), name), class_names=names)
    tensors, broken = [], []
    for file in files:
        try:
            image = _read(file)
            tensors.append(image if side is None else _resized(image, side))
        except UNREADABLE as error:
            broken.append(f"{file} ({error})")
    if broken:
        got = f"{len(broken)} that cannot: {', '.join(broken[:10])}"
        raise fail(name, "image files that can be read", got, "repair or remove them")
    shapes = sorted({tuple(x.shape) for x in tensors})
    if len(shapes) != 1:
        raise fail(name, "images of one size", shapes[:3], "pass resize=64, say: one height and width for all")
    stacked = torch.stack(tensors)
    # Every file is read as RGB; three equal channels are a grey image.
    if bool((stacked[:, :1] == stacked).all()):
        stacked = stacked[:, :1]
    return Images(stacked, torch.tensor(labels) if names else None, names)


def _held(files: list[str], side: int | None) -> bool:
    try:
        shape = (3, side, side) if side is not None else tuple(_read(files[0]).shape)
    except UNREADABLE:
        return True
    return fits((len(files), *shape))


def _read(file: str) -> Tensor:
    # A pipe would be waited on for ever.
    if not Path(file).is_file():
        raise ValueError("no regular file")
    return rgb_file(file)


def _resized(images: Tensor, side: int) -> Tensor:
    from torchvision.transforms.functional import resize  # here, since torchvision takes a second

    return resize(images, [side, side], antialias=True)


def _listed(path: Path, name: str) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The image files of class folders, the class of each and the classes' names; else those of the folder itself."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    expected = "a folder with one folder of images per class, or images alone"
    if not folders:
        loose = [str(entry) for entry in entries if is_image(entry.name)]
        if not loose:
            raise fail(name, expected, "none", "add some")
        return loose, [-1] * len(loose), ()
    each = [list(_below(folder, name)) for folder in folders]
    empty = [folder.name for folder, files in zip(folders, each, strict=True) if not files]
    if empty:
        raise fail(name, expected, f"no image in {', '.join(empty[:10])}", "add some, or remove these folders")
    labels = [k for k, files in enumerate(each) for _ in files]
    return [file for files in each for file in files], labels, tuple(folder.name for folder in folders)


def _below(folder: Path, name: str) -> Iterator[str]:
    """Image files of a folder and the folders in it, in order; ValueError where links lead round in a circle."""
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for f in folders:
            target = os.path.realpath(os.path.join(root, f))
            if os.path.commonpath([target, os.path.realpath(root)]) == target:
                raise fail(
                    name, "folders that do not hold themselves", f"a link from {root}/{f} to {target}", "remove it"
                )
        yield from (os.path.join(root, file) for file in sorted(files) if is_image(file))
