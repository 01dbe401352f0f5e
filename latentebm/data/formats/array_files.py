"""Arrays from .npz and .npy files of anybody's: read as what their headers promise, or refused by name."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from latentebm.checks import fail

__all__ = ["HELD", "RATIO", "SqueezedError", "check_unpacked", "mapped_npy", "mapped_npz", "read_npz"]

# What zipfile, zlib and numpy raise at files that are damaged, encrypted, huge or another program's.
BROKEN = (OSError, EOFError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError, struct.error)
BROKEN += (zipfile.BadZipFile, zlib.error, SyntaxError, KeyError)  # type: ignore[assignment]
HELD, RATIO = (
    2**28,
    200,
)  # bytes that are unpacked whatever they come from; above, at most so many times the packed ones
SAVED = "save it with numpy.savez(path, images=…)"


def read_npz(path: Path, name: str = "data", keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive, or those of some keys, nothing of it unpickled.

    Raises:
        ValueError: another kind of file, a damaged or encrypted one, or an array that is not as long as its header
            promises or longer than memory.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "x.npz"
        >>> np.savez(file, images=np.zeros((3, 2)))
        >>> read_npz(file)["images"].shape
        (3, 2)
    """
    if not zipfile.is_zipfile(path):
        raise fail(name, "an .npz archive", f"another kind of file, {path}", SAVED)
    with _refused(name, "an .npz archive of plain arrays", path, "save plain number arrays with numpy.savez"):
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            arrays = [entry for entry in entries if keys is None or entry.filename[:-4] in keys]
            for entry in arrays:
                with archive.open(entry) as stream:
                    _check_promise(entry.filename, stream, entry.file_size)
            size = sum(entry.file_size for entry in arrays)
            check_unpacked(size, sum(entry.compress_size for entry in arrays))
        with np.load(path, allow_pickle=False) as loaded:
            return {key: loaded[key] for key in loaded if keys is None or key in keys}


def mapped_npy(path: Path, name: str = "data") -> np.memmap:
    """The array of an .npy file, mapped.

    Raises:
        ValueError: another kind of file, or one that would need unpickling.
    """
    with _refused(name, "an .npy array of numbers", path, "save it with numpy.save"):
        array: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def mapped_npz(path: Path, member: str = "images") -> np.memmap | None:
    """The array of a member of an .npz file, mapped where it lies; None if it is absent, compressed or not whole.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "x.npz"
        >>> np.savez(file, images=np.arange(6).reshape(3, 2))
        >>> mapped_npz(file).tolist(), mapped_npz(file, "labels")
        ([[0, 1], [2, 3], [4, 5]], None)
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{member}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            return None
        with path.open("rb") as stream:
            stream.seek(entry.header_offset + 26)  # lengths of the name and of what follows, then both, then it
            stream.seek(sum(struct.unpack("<HH", stream.read(4))), 1)
            shape, fortran, dtype = _check_promise(member, stream, entry.file_size)
            order: Any = "F" if fortran else "C"
            return np.memmap(path, dtype=dtype, mode="r", offset=stream.tell(), shape=shape, order=order)
    except BROKEN:
        return None  # `read_npz` says what is wrong


class SqueezedError(ValueError):
    """A file holds more than memory takes, or hardly anything but repetition."""


def check_unpacked(size: int, packed: int, ratio: int = RATIO) -> None:
    """Raise SqueezedError where unpacked data are more than the memory takes, or hardly anything but repetition.

    Example:
        >>> check_unpacked(10**9, 10**6)
        Traceback (most recent call last):
        latentebm.data.formats.array_files.SqueezedError: 1,000,000,000 bytes unpacked, of 1,000,000
    """
    if size > max(HELD, ratio * packed):
        raise SqueezedError(f"{size:,} bytes unpacked, of {packed:,}")
    if size > (memory := _memory()):
        raise SqueezedError(f"{size:,} bytes, and {memory:,} of memory")


@contextmanager
def _refused(name: str, expected: str, path: Path, fix: str) -> Iterator[None]:
    """Say of whatever goes wrong in reading a file that the file is not as expected, in one line."""
    try:
        yield
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise fail(name, expected, f"{path} ({type(error).__name__}: {reason})", fix) from None


def _check_promise(name: str, stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array as its header says; ValueError unless `size` bytes hold just that."""
    start, version = stream.tell(), np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} of format {version}")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which would be unpickled")
    held, promised = size - (stream.tell() - start), prod(shape) * dtype.itemsize
    if held != promised or min(shape, default=0) < 0:
        raise ValueError(f"{name} of shape {shape} promises {promised:,} bytes and has {held:,}")
    return shape, fortran, dtype


def _memory() -> int:
    """Bytes of this machine's memory that are free, or all of them where that is not told."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not told on this system
        return 2**63
