"""A lock file beside what is being written, which names the process that writes it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentebm.checks import fail

__all__ = ["clear_stale", "locked", "unwritable"]

FRESH = 10.0  # seconds in which a lock may still be without its name


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock file beside `out`, which names this process.

    Raises:
        ValueError: another process holds it, or the place cannot be written.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "run"
        >>> with locked(out), locked(out):
        ...     pass
        Traceback (most recent call last):
        ValueError: out: expected a place that nobody else is writing, got ... delete ...
    """
    lock = _lock(out)
    try:
        with lock.open("x", encoding="utf-8") as stream:
            stream.write(f"{socket.gethostname()} {os.getpid()}")
    except FileExistsError:
        got = f"{out}, which another process is writing ({lock.read_text(encoding='utf-8') or 'unknown'})"
        fix = f"wait for it or choose another; if it is gone, delete {lock}"
        raise fail("out", "a place that nobody else is writing", got, fix) from None
    except OSError as error:
        raise unwritable(out, error) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def clear_stale(out: Path) -> bool:
    """Remove the lock of a process that is gone, and say whether `out` is free.

    Example:
        >>> clear_stale(Path("nowhere"))
        True
    """
    lock = _lock(out)
    try:
        owner, age = lock.read_text(encoding="utf-8"), time.time() - lock.stat().st_mtime
    except OSError:
        return True
    if _alive(owner) if owner else age < FRESH:
        return False
    lock.unlink(missing_ok=True)
    return True


def unwritable(out: Path, error: Exception) -> ValueError:
    """The error of a place that cannot be written.

    Example:
        >>> str(unwritable(Path("a"), OSError("full")))
        'out: expected a place that can be written, got a: full; choose another folder'
    """
    reason = getattr(error, "strerror", None) or str(error)
    return fail("out", "a place that can be written", f"{str(out)[:200]}: {reason}", "choose another folder")


def _lock(out: Path) -> Path:
    return out.parent / f".{out.name}.lock"


def _alive(owner: str) -> bool:
    """Whether the process that a lock names may still run; of another machine's nothing is known."""
    host, _, number = owner.rpartition(" ")
    if host != socket.gethostname() or not number.isdecimal():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and is another user's
        return True
    return True
