"""Mechanisms that depend on labels or on pixels: by class, and by intensity and place in an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from latentebm.checks import check_choice, check_number, fail
from latentebm.missing.mechanisms.mechanism import Mechanism, Removal
from latentebm.missing.mechanisms.table import Columns, Table

__all__ = ["ByClass", "ImagePixels"]

BYTES = 20.0  # intensity above which images are not in [0, 1], nor standardised


@dataclass(frozen=True)
class ByClass(Mechanism):
    r"""Missing by class: each cell of a row goes with the rate of the row's label, :math:`P(s_{ij}=0) = r_{y_i}`.

    With a rate given to :func:`make_missing`, the rates keep their ratios and are scaled to reach it in expectation.

    Labels left out of `rates` lose nothing; `columns` that may lose cells are all by default.

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> y = np.repeat([0, 1], 500)
        >>> _, mask = make_missing(np.zeros((1000, 40)), ByClass({1: 0.5}), y=y, random_state=0)
        >>> bool(mask[:500].all()), round(1 - float(mask[500:].mean()), 1)
        (True, 0.5)
    """

    rates: Mapping[Any, float]
    columns: Columns = None

    def __post_init__(self) -> None:
        for label, rate in self.rates.items():
            check_number(f"rates[{label!r}]", rate, low=0, high=1)

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each column with rows chosen by their labels."""
        y = table.labels("ByClass", "rates", self.rates)
        p = np.array([self.rates.get(label, 0.0) for label in y.tolist()], dtype=np.float64)
        for j in table.indices(self.columns):
            seen = p[table.seen[j]]
            mean, most = (float(seen.mean()), float(seen.max())) if len(seen) else (0.0, 0.0)
            q = 1.0 if rate is None or not len(seen) else _scale(rate, mean, most, "the rates given")
            yield [j], rng.random(len(p)) < q * p


@dataclass(frozen=True)
class ImagePixels(Mechanism):
    r"""Missing by intensity and place: bright pixels in a box, for chosen labels.

    .. math:: P(s_{ij}=0 \mid x, y) = q\,[x_{ij} \ge t]\,[j \in \mathrm{box}]\,[y_i \in \mathrm{digits}]

    with q = 1, or, given a rate, q solved so that the expected share of removed pixels among those of the box in the
    chosen images is the rate.

    Arguments:
        threshold: t, in the images' own unit of intensity.
        box: (top, bottom, left, right) pixel limits, bottom and right excluded; ``"center"`` for the central half of
            each side; None for the whole image.
        digits: labels that lose pixels; all by default.
        direction: ``high`` removes x ≥ t, ``low`` removes x ≤ t.

    Raises:
        ValueError: a threshold between 0 and 1 for images that go to 255.

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> image = np.array([[[0.0, 0.9], [0.2, 0.8]]] * 2)
        >>> image[1] = 0.0
        >>> make_missing(image, ImagePixels(threshold=0.5, box=(0, 1, 0, 2)))[0][0]
        array([[0. , nan],
               [0.2, 0.8]])
    """

    threshold: float = 0.5
    box: tuple[int, int, int, int] | str | None = None
    digits: Sequence[Any] | None = None
    direction: Literal["high", "low"] = "high"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, ("high", "low"))

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each pixel of the box with the images that lose it."""
        pixels = self._pixels(table.event_shape)
        self._same_scale(table, pixels)
        chosen = self._chosen(table)
        share = sum(int((self._eligible(table, j) & chosen).sum()) for j in pixels)
        cells = max(1, sum(int((table.seen[j] & chosen).sum()) for j in pixels))
        q = 1.0 if rate is None else _scale(rate, share / cells, 1.0, "pixels past the threshold in the box")
        for j in pixels:
            yield [j], (rng.random(table.shape[0]) < q) & self._eligible(table, j) & chosen

    def _same_scale(self, table: Table, pixels: list[int]) -> None:
        """Raise where a threshold for images in [0, 1] meets others: it would remove all but black pixels."""
        top = max((float(seen.max()) for j in pixels if (seen := table.numeric(j)[table.seen[j]]).size), default=0.0)
        if 0 < self.threshold < 1 and top > BYTES:
            fix = f"divide the images by 255, or pass threshold={255 * self.threshold:g}"
            raise fail("threshold", f"one on the images' scale, which goes to {top:g}", self.threshold, fix)

    def _eligible(self, table: Table, j: int) -> np.ndarray:
        pixel = table.numeric(j)
        return pixel >= self.threshold if self.direction == "high" else pixel <= self.threshold

    def _chosen(self, table: Table) -> np.ndarray:
        if self.digits is None:
            return np.ones(table.shape[0], dtype=bool)
        return np.isin(table.labels("ImagePixels with digits", "digits", self.digits), list(self.digits))

    def _pixels(self, event_shape: tuple[int, ...]) -> list[int]:
        if len(event_shape) < 2:
            raise fail("X", "images (N, H, W) or (N, C, H, W)", f"(N, {event_shape[0]})", "reshape the rows to images")
        height, width = event_shape[-2:]
        box = self.box
        if isinstance(box, str):
            check_choice("box", box, ("center",))
            box = (height // 4, height - height // 4, width // 4, width - width // 4)
        top, bottom, left, right = box or (0, height, 0, width)
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise fail("box", f"limits within {height} × {width} pixels", box, "pass (top, bottom, left, right)")
        inside = np.zeros(event_shape, dtype=bool)
        inside[..., top:bottom, left:right] = True
        return [int(j) for j in np.flatnonzero(inside)]


def _scale(rate: float, mean: float, largest: float, what: str) -> float:
    """Factor that brings a mean probability to `rate` and keeps the largest below 1."""
    if rate == 0:
        return 0.0
    reach = mean / largest if largest else 0.0
    if rate > reach * (1 + 1e-12):
        raise fail("rate", f"at most {reach:.4f}, all that {what} can lose", rate, "lower it")
    return rate / mean
