"""Progress bars as a plain argument: library code says what it walks over, the caller how to show it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol, TypeVar

from tqdm.auto import tqdm

__all__ = ["Track", "bars", "silent"]

T = TypeVar("T")


class Track(Protocol):
    """Yields the items of a sized collection while showing how far it is.

    Example:
        >>> list(silent([1, 2], "count"))
        [1, 2]
    """

    def __call__(self, items: Collection[T], description: str) -> Iterator[T]:
        """Walk over `items`."""
        ...


def silent(items: Collection[T], description: str) -> Iterator[T]:
    """Walk over `items` and show nothing.

    Example:
        >>> list(silent(range(3), "count"))
        [0, 1, 2]
    """
    yield from items


def bars(items: Collection[T], description: str) -> Iterator[T]:
    """Walk over `items` with a tqdm bar, in terminals and notebooks.

    Example:
        >>> list(bars([1], "count"))
        [1]
    """
    yield from tqdm(items, desc=description, leave=False)
