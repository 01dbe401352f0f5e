"""Files that are whole or absent: a temporary name, fsync, then rename."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["finite", "sha256", "write_atomic", "write_json", "write_text"]


def write_atomic(path: Path | str, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it into place.

    The temporary name keeps the suffix, since some writers choose their format by it. A failure leaves neither file.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomic(folder / "a.txt", lambda p: p.write_text("a" * (1 / 0)))
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
        >>> list(folder.iterdir())
        []
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _named(path):
            write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes the file private; the umask decides, as for any other file the user writes.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let what fails in writing, on a full disk above all, name the file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or isinstance(error, BrokenPipeError):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # by name: this module imports nothing
            raise
        raise OSError(errno.EIO, " ".join(str(error).split()), str(path)) from None


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 text atomically, as `write_atomic` does."""
    return write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: Path | str, value: Any) -> Path:
    """Write indented, strictly valid JSON atomically; NaN and infinities become null.

    Example:
        >>> print(write_json(Path(tempfile.mkdtemp()) / "a.json", {"k": float("nan")}).read_text().strip())
        {
          "k": null
        }
    """
    return write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value as JSON holds it: null for NaN and infinities, lists for tuples, text for keys.

    Example:
        >>> finite({1: (2.0, float("nan"))})
        {'1': [2.0, None]}
    """
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
