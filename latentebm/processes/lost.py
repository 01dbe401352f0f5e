"""What is said where another process has ended or hangs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from latentebm.processes.members import group_rank

__all__ = ["LostRankError", "exchange", "first_to_tell"]

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


class LostRankError(RuntimeError):
    """Another process has ended or hangs, so that what all do together cannot go on."""


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
        latentebm.processes.lost.LostRankError: processes: expected all to go on, but rank 0 lost another ...
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        if isinstance(error, LostRankError) or not any(sign in str(error) for sign in SIGNS):
            raise
        raise LostRankError(
            f"processes: expected all to go on, but rank {group_rank()} lost another ({reason}); see that one's own "
            "output, then start all again"
        ) from error
