"""What processes exchange: values, rows, sums and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from latentebm.processes.lost import exchange
from latentebm.processes.members import group_rank, own_rows, rank, share, solo, world

__all__ = ["from_main", "gather", "gather_rows", "mean", "on_main", "spread", "together", "tree"]

T = TypeVar("T")
KINDS = {kind.__name__: kind for kind in (FileNotFoundError, ValueError, FloatingPointError)}


def mean(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes, in all of them.

    Raises:
        LostRankError: another process has ended or hangs.

    Example:
        >>> mean(torch.ones(2))
        tensor([1., 1.])
    """
    if world() == 1:
        return x
    total = x.clone()
    with exchange():
        dist.all_reduce(total)
    return total / world()


def gather(value: T) -> list[T]:
    """What every process has of a value, in order, in all of them.

    Raises:
        LostRankError: another process has ended or hangs.

    Example:
        >>> gather("mine")
        ['mine']
    """
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    with exchange():
        dist.all_gather_object(found, value)
    return found


def gather_rows(x: Tensor) -> Tensor:
    """The rows (n, …) of all processes, which may differ in number, one after the other, in all of them.

    Example:
        >>> gather_rows(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if world() == 1:
        return x
    counts = gather(len(x))
    carrier = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    padded = x.detach().to(carrier).contiguous().new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    with exchange():
        dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(x.device)


def spread(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """A function of rows (n, …), each process computing its part of them: all values (n, …), in all of them.

    Example:
        >>> spread(lambda rows: rows.sum(1), torch.ones(3, 2))
        tensor([2., 2., 2.])
    """
    if world() == 1:
        return function(rows)
    own, count = own_rows(rows), len(share(len(rows)))
    return gather_rows(together(lambda: function(own))[:count])


def tree(value: T, merge: Callable[[T, T], T]) -> T:
    """What every process has of a value, merged two by two in ⌈log₂ world⌉ rounds, in all of them.

    Raises:
        LostRankError: another process has ended or hangs.

    Example:
        >>> tree({"sum": 3}, lambda a, b: {"sum": a["sum"] + b["sum"]})
        {'sum': 3}
    """
    me, count, step = rank(), world(), 1
    with exchange():
        while step < count:
            if me % (2 * step) == step:
                dist.send_object_list([value], dst=me - step)
                break
            if me + step < count:
                received: list[Any] = [None]
                dist.recv_object_list(received, src=me + step)
                value = merge(value, received[0])
            step *= 2
    return from_main(value)


def from_main(value: T) -> T:
    """Rank 0's value, in all processes.

    Example:
        >>> from_main(3)
        3
    """
    if world() == 1:
        return value
    held = [value]
    with exchange():
        dist.broadcast_object_list(held, src=0)
    return held[0]


def together(work: Callable[[], T]) -> T:
    """Do work without exchanges in every process; where it fails in one, its error is raised in all.

    Example:
        >>> together(lambda: 3)
        3
    """
    if world() == 1:
        return work()
    value, error = None, None
    try:
        with solo():
            value = work()
    except Exception as raised:  # noqa: BLE001 - raised below, in all of them
        error = raised
    for other, found in enumerate(gather(None if error is None else _plain(error))):
        if found is not None:
            raise error if error is not None else _error(*found, other)
    return value  # type: ignore[return-value]


def on_main(work: Callable[[], T]) -> T | None:
    """Do work in rank 0 while the others wait; they get None, or its error.

    Example:
        >>> on_main(lambda: 3)
        3
    """
    return together(lambda: work() if group_rank() == 0 else None)


def _plain(error: Exception) -> tuple[str, str]:
    """An error as text: the nearest kind that is known everywhere, and its message."""
    kind = next((name for name, known in KINDS.items() if isinstance(error, known)), "RuntimeError")
    return kind, str(error) if kind != "RuntimeError" else f"{type(error).__name__}: {error}"


def _error(kind: str, message: str, other: int) -> Exception:
    return KINDS.get(kind, RuntimeError)(message if other == 0 else f"{message} (rank {other})")
