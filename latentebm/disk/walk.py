"""A walk over parts of something long: stopped, it goes on after the parts whose results are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentebm.disk.checkpoint import Resumable, fit_checkpoint
from latentebm.progress import Track, silent

__all__ = ["walked"]

T = TypeVar("T")


def walked(
    work: Callable[[T], Any],
    parts: Sequence[T],
    description: str,
    data: Callable[[], Sequence[Tensor]],
    *,
    state: Sequence[torch.Generator] = (),
    track: Track = silent,
) -> list[Any]:
    """What `work` gives for each part; in a block of `checkpoints` the results known so far outlast the process.

    Arguments:
        work: gives tensors, numbers, or lists and dicts of them.
        parts: walked over in order.
        description: of the walk.
        data: gives what tells one walk from another, such as the parts themselves and energies of them.
        state: generators that the work draws from.
        track: shows progress.

    Example:
        >>> import tempfile
        >>> from latentebm.disk.checkpoint import checkpoints
        >>> folder, seen = tempfile.mkdtemp(), []
        >>> def tenth(part):
        ...     seen.append(part)
        ...     return 1 / (10 * (len(seen) != 3))
        >>> for _ in range(2):
        ...     try:
        ...         with checkpoints(folder, every=0):
        ...             print(walked(tenth, range(4), "tenths", lambda: []))
        ...     except ZeroDivisionError:
        ...         print("stopped")
        stopped
        [0.1, 0.1, 0.1, 0.1]
        >>> seen
        [0, 1, 2, 2, 3]
    """
    known = _Known()
    with fit_checkpoint(description, [known, *state], None, data) as saved:
        saved.restore()
        for part in track(parts[len(known.results) :], description):
            known.results.append(work(part))
            saved.step()
    return known.results


class _Known(Resumable):
    """The results so far."""

    def __init__(self) -> None:
        self.results: list[Any] = []
