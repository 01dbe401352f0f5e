"""Joining the processes that torchrun started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from latentebm.processes.lost import exchange

__all__ = ["joined", "launched"]

PATIENCE = timedelta(minutes=30)  # longest wait of one process for the others: rank 0 judges and draws figures alone


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
        ...     launched()
        False
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
