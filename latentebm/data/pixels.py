"""Pixels of any kind as uint8: arrays, tensors, pictures of PIL, image files, and the items of a Dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from latentebm.checks import fail

__all__ = ["UNREADABLE", "as_uint8", "is_image", "item_label", "item_pixels", "plain", "rgb_file"]

ROUNDING = 1e-5  # beyond [0, 1]: what rescaling in float32 may leave
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # SyntaxError: of PNG chunks
IMAGE_KEYS, LABEL_KEYS = ("image", "images", "img"), ("label", "labels")  # of items that are mappings


def as_uint8(images: Any, name: str = "images") -> Tensor:
    """Arrays of images (N, H, W) or (N, C, H, W) as uint8 (N, C, H, W); errors call them `name`.

    Raises:
        ValueError: images that are not uint8, or float in [0, 1], or have neither one nor three channels.

    Example:
        >>> as_uint8(np.ones((2, 4, 4))).shape
        torch.Size([2, 1, 4, 4])
    """
    x = images if isinstance(images, Tensor) else torch.as_tensor(plain(images, name))
    if x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 1:
        last = x.ndim == 4 and x.shape[3] in (1, 3)  # channels, which a reshape would mix up with columns
        fix = "move the channels: numpy.moveaxis(images, 3, 1)" if last else "pass grey or RGB images of one size"
        raise fail(name, "shape (N, H, W) or (N, C, H, W) with C 1 or 3", tuple(x.shape), fix)
    return x if x.dtype == torch.uint8 else _quantise(name, x)


def plain(array: Any, name: str = "images") -> Any:
    """An array of numbers, unsigned ones of 16 to 64 bits as signed ones, for which torch has arithmetic.

    Raises:
        ValueError: text, dates, records or objects, or arrays of different shapes, such as images and labels.

    Example:
        >>> plain(np.arange(2, dtype=np.uint16)).dtype
        dtype('int64')
    """
    try:
        array = np.asarray(array)
    except ValueError:  # numpy's own words name no argument
        got = f"a {type(array).__name__} of {len(array)} parts of different shapes"
        raise fail(
            name, "one array of numbers", got, "pass images alone, of one shape; labels are not needed"
        ) from None
    if array.dtype.kind not in "biufc":
        raise fail(name, "an array of numbers", f"{array.dtype}", "convert it, as by .astype(numpy.float32)")
    return array.astype(np.int64) if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array


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


def is_image(file: str) -> bool:
    """Whether a file is an image by its name, and not hidden.

    Example:
        >>> is_image("a/b.PNG"), is_image("a/.b.png")
        (True, False)
    """
    return file.lower().endswith(SUFFIXES) and not Path(file).name.startswith(".")


def rgb_file(file: str) -> Tensor:
    """An image file of any mode as (3, H, W), uint8, turned as its EXIF says; transparent parts are black.

    Raises:
        ValueError: a file of several frames, or of pixels that 16 bits do not hold.
    """
    with Image.open(file) as opened:
        return _tensor(_flat(opened).convert("RGB"))


def _tensor(image: Image.Image) -> Tensor:
    from torchvision.transforms.functional import pil_to_tensor  # here, since torchvision takes a second

    return pil_to_tensor(image)


def _flat(opened: Image.Image) -> Image.Image:
    """A picture of PIL with 8 bits per channel and without transparency."""
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
    return image


def item_pixels(item: Any, name: str) -> Tensor:
    """The image of a Dataset's item as (C, H, W), uint8: the item itself, the first of a pair, or its ``image``.

    Raises:
        ValueError: there is none, or its pixels are not as `as_uint8` takes them.

    Example:
        >>> item_pixels({"image": Image.new("L", (5, 4)), "label": 3}, "data[0]").shape
        torch.Size([1, 4, 5])
    """
    if isinstance(item, Mapping):
        found = [item[key] for key in IMAGE_KEYS if key in item]
        if not found:
            raise fail(name, f"one of the keys {', '.join(IMAGE_KEYS)}", ", ".join(map(str, item)), "rename the column")
        item = found[0]
    if isinstance(item, tuple | list):
        if not item:
            raise fail(name, "an image, or a pair of image and label", "an empty item", "leave it out")
        item = item[0]
    if isinstance(item, Image.Image):
        image = _flat(item)
        return _tensor(image.convert("L" if image.mode in ("L", "1") else "RGB"))
    if not isinstance(item, Tensor | np.ndarray):
        raise fail(name, "a tensor, an array or a PIL image", type(item).__name__, "return one from __getitem__")
    # A copy: rows of a mapped array cannot be written, which torch warns of.
    return as_uint8(item[None] if isinstance(item, Tensor) else np.array(item)[None], name)[0]


def item_label(item: Any, name: str) -> int:
    """The label of a Dataset's item, −1 where it has none.

    Raises:
        ValueError: a label that is no whole number in [0, 999].

    Example:
        >>> item_label((torch.zeros(4, 4), 7), "data[0]"), item_label(torch.zeros(4, 4), "data[0]")
        (7, -1)
    """
    if isinstance(item, Mapping):
        found = [item[key] for key in LABEL_KEYS if key in item]
    else:
        found = list(item[1:2]) if isinstance(item, tuple | list) else []
    if not found:
        return -1
    value = found[0].item() if isinstance(found[0], Tensor | np.ndarray | np.generic) else found[0]
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= int(value) <= 999:
        raise fail(f"{name} label", "a whole number in [0, 999]", repr(value), "number the classes from 0")
    return int(value)
