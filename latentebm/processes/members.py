"""Who this process is among several, and which part of a work is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from latentebm.rng import stream

__all__ = ["group_rank", "grouped", "own_rows", "own_stream", "rank", "share", "solo", "world"]

_SOLO: ContextVar[bool] = ContextVar("solo", default=False)


def world() -> int:
    """Number of processes that work together here; 1 without a process group, and inside `solo`.

    Example:
        >>> world(), rank()
        (1, 0)
    """
    return 1 if _SOLO.get() or not (dist.is_available() and dist.is_initialized()) else dist.get_world_size()


def rank() -> int:
    """Number of this process, 0 for the one that prints and writes."""
    return dist.get_rank() if world() > 1 else 0


def group_rank() -> int:
    """Number of this process, inside `solo` too.

    Example:
        >>> group_rank()
        0
    """
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def grouped() -> bool:
    """Whether there is a group of several processes, inside `solo` too.

    Example:
        >>> grouped()
        False
    """
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def solo() -> Iterator[None]:
    """Let this process work for itself inside the block, whatever the others do.

    Example:
        >>> with solo():
        ...     world()
        1
    """
    token = _SOLO.set(True)
    try:
        yield
    finally:
        _SOLO.reset(token)


def share(n: int, part: int | None = None, parts: int | None = None) -> range:
    """This process's part of 0 … n − 1, or any part of several: contiguous, as even as can be, perhaps empty.

    Example:
        >>> [share(5, part, 3) for part in range(3)], share(5)
        ([range(0, 2), range(2, 4), range(4, 5)], range(0, 5))
    """
    part, parts = rank() if part is None else part, world() if parts is None else parts
    least, more = divmod(n, parts)
    start = part * least + min(part, more)
    return range(start, start + least + (part < more))


def own_rows(rows: Tensor) -> Tensor:
    """This process's share of the rows of a batch; the first row, which then weighs nothing, where it has none.

    Example:
        >>> own_rows(torch.arange(3))
        tensor([0, 1, 2])
    """
    part = share(len(rows))
    return rows[part.start : part.stop] if part else rows[:1]


def own_stream(generator: torch.Generator, part: int | None = None) -> torch.Generator:
    """A CPU stream of this process's own, or of any part, independent of the others' by construction.

    The generator, which is in the same state in all of them, moves on by one number. Alone, it is the stream itself.

    Example:
        >>> draws = [torch.rand(1, generator=own_stream(torch.Generator().manual_seed(0), part)) for part in range(2)]
        >>> bool(draws[0] == draws[1])
        False
    """
    if part is None and world() == 1:
        return generator
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return stream(int(seed), rank() if part is None else part)
