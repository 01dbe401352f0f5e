"""Processes that do one job together, over torch.distributed: who this one is, and what they exchange.

Every process runs the same program with the same arguments. Where there is one alone, everything here does nothing. An
exchange is reached by all or by none: work that only some of them do belongs into `on_main`, or into `solo`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from latentebm.rng import stream

__all__ = [
    *("LostRankError", "exchange", "first_to_tell", "from_main", "gather", "gather_rows", "grouped", "joined"),
    *("launched", "mean", "on_main", "own_rows", "own_stream", "rank", "share", "solo", "together", "tree", "world"),
]

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # longest wait of one process for the others: rank 0 judges and draws figures alone
KINDS = {kind.__name__: kind for kind in (FileNotFoundError, ValueError, FloatingPointError)}
# What gloo, NCCL and the store they meet at say of a process that is gone or hangs.
SIGNS = (
    "gloo",
    "NCCL",
    "Connection",
    "connection",
    "Socket",
    "socket",
    "imed out",
    "imeout",
    "Broken pipe",
    "TCPStore",
)
_SOLO: ContextVar[bool] = ContextVar("solo", default=False)


class LostRankError(RuntimeError):
    """Another process has ended or hangs, so that what all do together cannot go on."""


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
    return together(lambda: work() if _group_rank() == 0 else None)


def _group_rank() -> int:
    """Number of this process, inside `solo` too."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def launched() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, started this process as one of several."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, for the block; without torchrun, or in a group already, do nothing.

    NCCL where each process of a machine has a GPU of its own, else gloo. SIGTERM, by which torchrun ends the processes
    that are left once one has died, ends the block in order: what it was writing is removed.

    Example:
        >>> with joined():
        ...     world()
        1
    """
    if not launched() or dist.is_initialized():
        yield
        return
    local, beside = (int(os.environ.get(name, 1)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(local % gpus)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with exchange():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus >= beside else "gloo", timeout=PATIENCE)
    try:
        yield
    except SystemExit as end:
        if end.code in (0, None):
            dist.destroy_process_group()
        raise
    # After a failure the group is left as it is: to take it down in order would wait for the others.
    dist.destroy_process_group()


def first_to_tell() -> bool:
    """Whether this process is the first of those left to tell that one was lost."""
    try:
        return bool(dist.distributed_c10d._get_default_store().add("latentebm/lost", 1) == 1)
    except (RuntimeError, ValueError):  # the process that held the store is the one that was lost
        return True


@contextmanager
def exchange() -> Iterator[None]:
    """Say in plain words that an exchange inside the block failed.

    Raises:
        LostRankError: it did.

    Example:
        >>> with exchange():
        ...     raise RuntimeError("[tcp/pair.cc] Connection closed by peer")
        Traceback (most recent call last):
        latentebm.processes.LostRankError: processes: expected all to go on, but rank 0 lost another ([tcp/pair.cc] ...
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        if isinstance(error, LostRankError) or not any(sign in str(error) for sign in SIGNS):
            raise
        raise LostRankError(
            f"processes: expected all to go on, but rank {_group_rank()} lost another ({reason}); see that one's own "
            "output, then start all again"
        ) from error


def _plain(error: Exception) -> tuple[str, str]:
    """An error as text: the nearest kind that is known everywhere, and its message."""
    kind = next((name for name, known in KINDS.items() if isinstance(error, known)), "RuntimeError")
    return kind, str(error) if kind != "RuntimeError" else f"{type(error).__name__}: {error}"


def _error(kind: str, message: str, other: int) -> Exception:
    return KINDS.get(kind, RuntimeError)(message if other == 0 else f"{message} (rank {other})")
