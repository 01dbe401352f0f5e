"""Progress bars as a plain argument: library code says what it walks over, the caller how to show it."""

from __future__ import annotations

from collections import abc
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Sized", "Track", "bars", "silent"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Sized(abc.Sized, Iterable[T_co], Protocol[T_co]):
    """Something to walk over whose length is known."""


class Track(Protocol):
    """Yields the items of something sized while showing how far it is."""

    def __call__(self, items: Sized[T], description: str) -> Iterator[T]:
        """Walk over `items`."""
        ...


def silent(items: Sized[T], description: str) -> Iterator[T]:
    """Walk over `items` and show nothing."""
    yield from items


def bars(items: Sized[T], description: str) -> Iterator[T]:
    """Walk over `items` with a tqdm bar, in terminals and notebooks.

    Example:
        >>> sum(bars(range(4), "count"))
        6
    """
    from tqdm.auto import tqdm  # here, since it takes a third of the time that --help has

    with tqdm(total=len(items), desc=description, leave=False) as bar:
        for item in items:
            yield item
            bar.update()
