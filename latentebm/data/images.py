"""Labelled images as one uint8 tensor: MNIST, Fashion-MNIST, an .npz file, or a folder of class folders."""

from __future__ import annotations

import gzip
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.transforms.functional import pil_to_tensor

from latentebm.checks import fail
from latentebm.data.shipped import SHIPPED, shipped_file
from latentebm.files import write_atomic

__all__ = ["Images", "as_images", "load_images", "load_npz"]

TORCHVISION = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}
ROUNDING = 1e-5  # beyond [0, 1]: what rescaling in float32 may leave
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Images:
    """Images and, where known, their labels.

    Example:
        >>> data = Images(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"))
        >>> data.float01().mean(), data.counts()
        (tensor(0.2000), [1, 2])
    """

    images: Tensor  # (N, C, H, W), uint8
    labels: Tensor | None = None  # class indices, (N,), int64
    class_names: tuple[str, ...] = ()  # of each class index

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Images:
        labels = None if self.labels is None else self.labels[rows]
        return Images(self.images[rows], labels, self.class_names)

    def float01(self) -> Tensor:
        """Pixels as float32 in [0, 1], (N, C, H, W)."""
        return self.images.float() / 255

    def counts(self) -> list[int]:
        """Images per class, in the order of `class_names`; empty without labels."""
        return [] if self.labels is None else torch.bincount(self.labels, minlength=len(self.class_names)).tolist()


def as_images(images: np.ndarray | Tensor, labels: np.ndarray | Tensor | None = None, name: str = "images") -> Images:
    """Check arrays of images and labels and hold them as uint8; errors call them `name`.

    Raises:
        ValueError: images that are not uint8, or float in [0, 1], of shape (N, H, W) or (N, C, H, W) with C of 1 or 3;
            labels that are not whole numbers (N,) in [0, 999].

    Example:
        >>> as_images(np.ones((2, 4, 4))).images.max()
        tensor(255, dtype=torch.uint8)
    """
    x = images if isinstance(images, Tensor) else torch.as_tensor(_plain(images))
    if x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 1:
        raise fail(name, "shape (N, H, W) or (N, C, H, W) with C 1 or 3", tuple(x.shape), "reshape or transpose them")
    if x.dtype != torch.uint8:
        x = _quantise(name, x)
    if labels is None:
        return Images(x)
    names, y = _numbered(labels)
    y = _labels(name, y, len(x))
    return Images(x, y, names or tuple(str(k) for k in range(int(y.max()) + 1 if len(y) else 0)))


def _plain(array: Any) -> Any:
    """Unsigned numbers of 16 to 64 bits as signed ones, for which torch has arithmetic."""
    array = np.asarray(array)
    return array.astype(np.int64) if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array


def _numbered(labels: Any) -> tuple[tuple[str, ...], Tensor]:
    """Names and indices of text labels; other labels as they are, without names."""
    if isinstance(labels, Tensor):
        return (), labels.long() if labels.dtype == torch.bool else labels
    array = np.asarray(labels)
    if array.dtype.kind in "US":
        names, index = np.unique(array, return_inverse=True)
        return tuple(map(str, names)), torch.as_tensor(index.reshape(array.shape))
    return (), torch.as_tensor(_plain(array.astype(np.int64) if array.dtype.kind == "b" else array))


def _quantise(name: str, x: Tensor) -> Tensor:
    if x.dtype == torch.bool:
        return x.to(torch.uint8) * 255
    if not x.is_floating_point():
        got = f"{x.dtype}" + (f" in [{int(x.min())}, {int(x.max())}]" if x.numel() and not x.is_complex() else "")
        fix = "as floats, divide by the largest possible value: 255, 4095 of 12 bits, 65535 of 16"
        raise fail(name, "uint8, or float in [0, 1]", got, fix)
    if not bool(torch.isfinite(x).all()):
        raise fail(name, "finite pixels", "NaN or infinite ones", "drop those images")
    if len(x) and (x.min() < -ROUNDING or x.max() > 1 + ROUNDING):
        got = f"floats in [{x.min():.3g}, {x.max():.3g}]"
        raise fail(
            name, "floats in [0, 1]", got, "rescale them to [0, 1] (of [-1, 1]: add 1 and divide by 2), or pass uint8"
        )
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def _labels(name: str, y: Tensor, n: int) -> Tensor:
    if y.shape != (n,):
        raise fail(f"{name} labels", f"shape ({n},), one per image", tuple(y.shape), "pass one label per image")
    fractional = y.is_floating_point() or y.is_complex()
    if fractional or (n and (y.min() < 0 or y.max() > 999)):
        got = str(y.dtype) if fractional else f"[{int(y.min())}, {int(y.max())}]"
        raise fail(f"{name} labels", "whole numbers in [0, 999]", got, "number the classes from 0")
    return y.long()


def load_npz(path: Path | str, name: str = "data") -> Images:
    """Read `images` and optional `labels` of an .npz file, as `as_images` takes them, without unpickling anything."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: expected a file at {path}, found none; check the path")
    arrays = _arrays(path, name)
    if "images" not in arrays:
        got = ", ".join(arrays) or "no arrays"
        raise fail(name, "an array called 'images'", got, "save it with numpy.savez(path, images=…)")
    return as_images(arrays["images"], arrays.get("labels"), name)


def _arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an archive; a file that would need unpickling is refused like any other broken one."""
    if not zipfile.is_zipfile(path):
        raise fail(name, "an .npz archive", f"another kind of file, {path}", "save it with numpy.savez(path, images=…)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        got = f"{type(error).__name__}: {error}"
        fix = "save plain number arrays with numpy.savez"
        raise fail(name, "an .npz archive of plain arrays", got, fix) from error


def load_images(data: str, *, root: Path | str | None = None, train: bool = True) -> Images:
    """Load ``mnist``, ``fashion-mnist``, an .npz file, or a folder with one folder of images per class.

    Arguments:
        data: the name or the path.
        root: where torchvision's files are or go; None for ``LATENTEBM_DATA``, then the shipped MNIST.
        train: training or test part; your own data have one part only.

    Example:
        >>> len(load_images("mnist", train=False))
        10000
    """
    if data in TORCHVISION:
        return _torchvision(data, root, train)
    path = Path(data)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix == ".npz" or path.is_file():
        return load_npz(path)
    expected = "mnist, fashion-mnist, an .npz file or a folder of class folders"
    raise FileNotFoundError(f"data: expected {expected}, got {data!r}, which does not exist; check the path")


def _torchvision(data: str, root: Path | str | None, train: bool) -> Images:
    root = root or os.environ.get("LATENTEBM_DATA")
    if root is None and data == "mnist":
        return _shipped_mnist("train" if train else "t10k")
    folder = Path(root) if root is not None else _cache()
    try:
        dataset = TORCHVISION[data](str(folder), train=train, download=True)
    except (RuntimeError, OSError) as error:
        got = f"data: expected {data} in {folder} or a network to download it, got {error}"
        raise FileNotFoundError(f"{got}; set LATENTEBM_DATA, or data_root, to a folder that has it") from error
    return Images(dataset.data.unsqueeze(1), dataset.targets.long(), tuple(map(str, dataset.classes)))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentebm"


def _shipped_mnist(part: str) -> Images:
    images = _unpacked(f"MNIST/raw/{part}-images-idx3-ubyte.gz", read_image_file)
    labels = _unpacked(f"MNIST/raw/{part}-labels-idx1-ubyte.gz", read_label_file)
    return Images(images.unsqueeze(1), labels, tuple(map(str, range(10))))


def _unpacked(name: str, read: Callable[[str], Tensor]) -> Tensor:
    """What a shipped file holds, unpacked once under its digest, or each time where no cache can be written."""
    target = _cache() / SHIPPED[name][:16] / Path(name).stem
    try:
        if not target.is_file():
            write_atomic(target, lambda p: p.write_bytes(gzip.decompress(shipped_file(name).read_bytes())))
        return read(str(target))
    except OSError:
        with tempfile.NamedTemporaryFile() as stream:
            stream.write(gzip.decompress(shipped_file(name).read_bytes()))
            stream.flush()
            return read(stream.name)


def _is_image(file: str) -> bool:
    return file.lower().endswith(IMAGE_SUFFIXES) and not Path(file).name.startswith(".")


def _rgb(file: str) -> Tensor:
    """An image file of any mode as (3, H, W), uint8, turned as its EXIF says; transparent parts are black."""
    with Image.open(file) as opened:
        if (frames := getattr(opened, "n_frames", 1)) > 1:
            raise ValueError(f"{frames} frames; save the one you mean")
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            pixels = np.asarray(image)  # 16 bits, in a file of which no more are used
            if pixels.min() < 0 or pixels.max() > 65535:
                raise ValueError(f"pixels in [{pixels.min()}, {pixels.max()}]; save it with 8 or 16 bits")
            image = Image.fromarray((pixels / 257).round().astype(np.uint8))
        if image.mode == "F":
            raise ValueError("floating pixels; save it with 8 or 16 bits")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        return pil_to_tensor(image.convert("RGB"))


def _load_folder(path: Path) -> Images:
    try:
        folder = datasets.ImageFolder(str(path), is_valid_file=_is_image)
    except FileNotFoundError as error:
        fix = "put the images of each class into a folder of its own"
        raise fail("data", "a folder with one folder of images per class", str(error), fix) from None
    tensors, broken = [], []
    for file, _ in folder.samples:
        try:
            tensors.append(_rgb(file))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: of PNG chunks
            broken.append(f"{file} ({error})")
    if broken:
        got = f"{len(broken)} that cannot: {', '.join(broken[:10])}"
        raise fail("data", "image files that can be read", got, "repair or remove them")
    shapes = sorted({tuple(x.shape) for x in tensors})
    if len(shapes) != 1:
        raise fail("data", "images of one size", shapes[:3], "resize them to one height and width")
    stacked = torch.stack(tensors)
    # Every file is read as RGB; three equal channels are a grey image.
    if bool((stacked[:, :1] == stacked).all()):
        stacked = stacked[:, :1]
    return Images(stacked, torch.tensor(folder.targets), tuple(folder.classes))
