"""Run folders: reserved before any work, built under a hidden name, and put in place once they are whole."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentebm.checks import fail

__all__ = ["check_out", "run_folder", "written"]

FILES = ("metrics.json", "samples.npz", "log.jsonl", "report.html", "vae.safetensors", "energy.safetensors")
TABLES = ("samples.csv", "samples.tsv", "samples.parquet")


def check_out(out: Path | str, overwrite: bool) -> Path:
    """Return `out` as a path where a run may be written, ``~`` replaced by the home folder.

    Raises:
        ValueError: something is there that may not be replaced, or the place can't hold a folder.

    Example:
        >>> check_out(Path(tempfile.mkdtemp()) / "run", overwrite=False).name
        'run'
    """
    try:
        path = Path(out).expanduser()
        _recover(path.resolve())
        if path.is_symlink() and not path.exists():
            got = f"{path}, a link to {path.readlink()}, which does not exist"
            raise fail("out", "a folder, or a link to one", got, "create it or choose another name")
        if path.exists() and not path.is_dir():
            raise fail("out", "a folder", f"{path}, a file", "choose another name")
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                fix = "choose another, or pass overwrite=True"
                raise fail("out", "a folder that does not exist yet", f"{path}", fix)
            if not written(path):
                raise fail("out", "an earlier run to overwrite", f"{path}, which holds other files", "choose another")
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder that cannot be found
        raise _unwritable(Path(out), error) from None
    return path


def written(folder: Path) -> list[Path]:
    """The files that a run of ours wrote into a folder, ``config.json`` first; empty where it is no run.

    Example:
        >>> written(Path("nowhere"))
        []
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = ["config.json", *FILES, *TABLES, *config["manifest"]] if "latentebm" in config else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    figures = [f"figures/{file.name}" for file in (folder / "figures").glob("*.png")]
    return [folder / name for name in dict.fromkeys(names + figures) if names and (folder / name).is_file()]


@contextmanager
def run_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Reserve `out` and give a hidden folder whose files go there once the block has succeeded, and vanish if not.

    While the block runs, a lock beside `out` keeps other runs away. Of an earlier run only the files that it wrote are
    replaced. ``config.json`` leaves first and comes last: a folder without it never passes as a run.

    Raises:
        ValueError: see `check_out`; or another run is writing there, or the place cannot be written.

    Example:
        >>> out = Path(tempfile.mkdtemp()) / "run"
        >>> with run_folder(out, overwrite=False) as folder:
        ...     _ = (folder / "a.txt").write_text("a")
        >>> [p.name for p in out.iterdir()]
        ['a.txt']
    """
    out = check_out(out, overwrite).resolve()  # a link is followed, and `.` has a name
    with _parents(out), _locked(out), _hidden(out) as hidden:
        yield (new := hidden / "new")
        check_out(out, overwrite)
        if not out.exists():
            new.rename(out)
        else:
            try:
                _move(written(out), out, hidden / "old")
                _move(_config_last(new), new, out)
            except BaseException:  # a full disk, Ctrl-C: the earlier run comes back
                _move(_config_last(hidden / "old"), hidden / "old", out)
                raise
        _sync(out.parent)


def _move(files: list[Path], source: Path, target: Path) -> None:
    for file in files:
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place)  # across file systems too, where `out` is a mount point


def _config_last(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"), key=lambda file: file.name == "config.json")


def _recover(out: Path) -> None:
    """Undo what a killed run left behind: its lock, its hidden folder, an earlier run that it was replacing."""
    lock = _lock(out)
    if not lock.is_file() or _alive(lock.read_text(encoding="utf-8")):
        return
    for hidden in out.parent.glob(f".{out.name}-*"):
        if written(hidden / "old") and not (out / "config.json").is_file():
            _move(_config_last(hidden / "old"), hidden / "old", out)
        shutil.rmtree(hidden, ignore_errors=True)
    lock.unlink(missing_ok=True)


def _lock(out: Path) -> Path:
    return out.parent / f".{out.name}.lock"


def _sync(folder: Path) -> None:
    with suppress(OSError):  # some file systems know no fsync of folders
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


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
    """Hold the lock file beside `out`, which names this process."""
    lock = _lock(out)
    try:
        with lock.open("x", encoding="utf-8") as stream:
            stream.write(f"{socket.gethostname()} {os.getpid()}")
    except FileExistsError:
        got = f"{out}, which another run is writing ({lock.read_text(encoding='utf-8') or 'unknown'})"
        fix = f"wait for it or choose another; if it is gone, delete {lock}"
        raise fail("out", "a folder that no other run is writing", got, fix) from None
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
        (Path(folder) / "new").mkdir()
        yield Path(folder)


def _unwritable(out: Path, error: Exception) -> ValueError:
    reason = getattr(error, "strerror", None) or str(error)
    return fail("out", "a place that can be written", f"{str(out)[:200]}: {reason}", "choose another folder")
