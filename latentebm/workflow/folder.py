"""Run folders: reserved before any work, built under a hidden name, and renamed once they are whole."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentebm.checks import fail

__all__ = ["check_out", "run_folder"]


def check_out(out: Path | str, overwrite: bool) -> Path:
    """Return `out` as a path where a run may be written.

    Raises:
        ValueError: something is there that may not be replaced, or the place can't hold a folder.

    Example:
        >>> check_out(Path(tempfile.mkdtemp()) / "run", overwrite=False).name
        'run'
    """
    path = Path(out)
    try:
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                fix = "choose another, or pass overwrite=True"
                raise fail("out", "a folder that does not exist yet", f"{path}", fix)
            if not (path / "config.json").is_file():
                got = f"{path}, which holds other files"
                raise fail("out", "an earlier run to overwrite", got, "choose another folder")
        elif path.exists() and not path.is_dir():
            raise fail("out", "a folder", f"{path}, a file", "choose another name")
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


@contextmanager
def run_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Reserve `out` and give a hidden folder that takes its place once the block has succeeded, and vanishes if not.

    While the block runs, a lock beside `out` keeps other runs away.

    Raises:
        ValueError: see `check_out`; or another run is writing there, or the place cannot be written.

    Example:
        >>> out = Path(tempfile.mkdtemp()) / "run"
        >>> with run_folder(out, overwrite=False) as folder:
        ...     _ = (folder / "a.txt").write_text("a")
        >>> [p.name for p in out.iterdir()]
        ['a.txt']
    """
    check_out(out, overwrite)
    with _parents(out), _locked(out), _hidden(out) as hidden:
        new, old = hidden / "new", hidden / "old"
        new.mkdir()
        yield new
        check_out(out, overwrite)
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _parents(out: Path) -> Iterator[None]:
    """Make the folders above `out`, and remove those made where nothing has been put into them."""
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        yield
    finally:
        with suppress(OSError):  # the first that holds something ends it
            for parent in missing:
                parent.rmdir()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the lock file beside `out`, which names this process; one whose process is gone is taken over."""
    lock = out.parent / f".{out.name}.lock"
    for _ in range(2):
        try:
            with lock.open("x", encoding="utf-8") as stream:
                stream.write(f"{socket.gethostname()} {os.getpid()}")
            break
        except FileExistsError:
            if _alive(owner := lock.read_text(encoding="utf-8")):
                got = f"{out}, which another run is writing ({owner or 'unknown'})"
                fix = f"wait for it or choose another; if it is gone, delete {lock}"
                raise fail("out", "a folder that no other run is writing", got, fix) from None
            lock.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(out, error) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


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


@contextmanager
def _hidden(out: Path) -> Iterator[Path]:
    try:
        hidden = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        raise _unwritable(out, error) from None
    with hidden as folder:
        yield Path(folder)


def _unwritable(out: Path, error: OSError) -> ValueError:
    return fail("out", "a place that can be written", f"{out}: {error.strerror}", "choose another folder")
