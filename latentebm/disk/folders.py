"""Folders and sets of files that are whole or absent: reserved before any work, built out of sight, put in place last.

While work is going on, a lock that names the process stands beside what is written, and a hidden folder: its ``new``
holds what will be put in place, ``kept`` what an unfinished job goes on from, ``old`` what is being replaced.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from latentebm.checks import fail
from latentebm.disk.locks import clear_stale, locked, unwritable
from latentebm.disk.outputs import check_files, check_place
from latentebm.disk.placing import put, sync, undo
from latentebm.files import write_json

__all__ = ["Workplace", "check_out", "check_writable", "recover", "run_folder", "unfinished", "whole_files", "written"]

FILES = (
    *("metrics.json", "samples.npz", "log.jsonl", "report.html"),
    *("vae.safetensors", "energy.safetensors", "judge.safetensors"),
)
JOB = "job.json"
EVENTS = "tensorboard"


class Workplace(NamedTuple):
    """Where a job builds what will be put in place, and where it keeps what it would go on from."""

    new: Path
    kept: Path
    root: Path  # what ``new`` stands for

    @property
    def log(self) -> Path:
        """Where the job's log is written as it goes: it stays where the job's kept work does."""
        return self.new.parent / "log.jsonl"

    @property
    def events(self) -> Path:
        """Folder of TensorBoard's files, as they are written."""
        return self.new.parent / EVENTS

    def put_log(self) -> None:
        """Copy the log, and TensorBoard's files, to what will be put in place."""
        if self.log.is_file():
            shutil.copyfile(self.log, self.new / "log.jsonl")
        if self.events.is_dir():
            shutil.copytree(self.events, self.new / EVENTS, dirs_exist_ok=True)

    def at(self, file: Path) -> Path:
        """Where to write a file for now."""
        temporary = self.new / file.expanduser().resolve().relative_to(self.root)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        return temporary


def check_out(out: Path | str, overwrite: bool) -> Path:
    """Return `out` as a path where a run may be written, ``~`` replaced by the home folder.

    Raises:
        ValueError: something is there that may not be replaced, or the place can't hold a folder.

    Example:
        >>> import tempfile
        >>> check_out(Path(tempfile.mkdtemp()) / "run", overwrite=False).name
        'run'
    """
    path = check_place(out, "folder")
    try:
        recover(path)
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                fix = "choose another, or pass overwrite=True"
                raise fail("out", "a folder that does not exist yet", f"{path}", fix)
            if not written(path):
                raise fail("out", "an earlier run to overwrite", f"{path}, which holds other files", "choose another")
    except OSError as error:
        raise unwritable(path, error) from None
    return path


def written(folder: Path) -> list[Path]:
    """The files that a run of ours wrote into a folder, ``config.json`` first; empty where it is no run.

    Example:
        >>> written(Path("nowhere"))
        []
    """
    try:
        config = _json(folder / "config.json")
        names = ["config.json", *FILES, *config["manifest"]] if "latentebm" in config else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    figures = [f"figures/{file.name}" for file in (folder / "figures").glob("*.png")]
    figures += [f"{EVENTS}/{file.name}" for file in (folder / EVENTS).glob("events.out.tfevents.*")]
    plain = [name for name in dict.fromkeys(names + figures) if Path(name).name == name or name in figures]
    return [folder / name for name in plain if (folder / name).is_file()]


@contextmanager
def run_folder(
    out: Path, overwrite: bool, *, job: Mapping[str, Any] | None = None, afresh: bool = True
) -> Iterator[Workplace]:
    """Reserve `out` and give a workplace whose ``new`` goes there once the block has succeeded.

    While the block runs, a lock beside `out` keeps other runs away. Of an earlier run only the files that it wrote are
    replaced. ``config.json`` leaves first and comes last: a folder without it never passes as a run. Where the block
    fails or is killed with something in ``kept``, the workplace stays, and the same job finds it there again.

    Arguments:
        out: the folder.
        overwrite: whether an earlier run may be replaced.
        job: what is done, in plain values: an unfinished job of others is named and refused.
        afresh: whether `overwrite` also clears an unfinished job of other settings; the same one goes on.

    Raises:
        ValueError: see `check_out`; or another run is writing there, has not been finished, or the place cannot be
            written.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "run"
        >>> with run_folder(out, overwrite=False) as place:
        ...     _ = (place.new / "a.txt").write_text("a")
        >>> [p.name for p in out.iterdir()]
        ['a.txt']
    """
    out = check_out(out, overwrite).resolve()  # a link is followed, and `.` has a name
    with _workplace(out, out, job, overwrite and afresh) as place:
        yield place
        check_out(out, overwrite)
        if out.exists():
            put(place.new.parent, out, written(out))
        else:
            place.new.rename(out)
            sync(out.parent)


@contextmanager
def whole_files(
    out: Path, *, job: Mapping[str, Any] | None = None, afresh: bool = False, replace: bool = True
) -> Iterator[Workplace]:
    """Write several files that appear together or not at all.

    Arguments:
        out: the folder or file that the lock stands beside.
        job: as in `run_folder`.
        afresh: whether an unfinished job of other settings is cleared.
        replace: whether files that are there when the block has succeeded are replaced.

    Raises:
        ValueError: another process is writing there, the place cannot be written, or a file is there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole_files(folder) as place:
        ...     _ = place.at(folder / "a.txt").write_text("a")
        ...     1 / 0
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
        >>> list(folder.iterdir())
        []
    """
    out = _followed(out)
    with _workplace(out, Path(out.anchor), job, afresh) as place:
        yield place
        made = [place.root / file.relative_to(place.new) for file in place.new.rglob("*") if file.is_file()]
        check_files(made, replace)
        put(place.new.parent, place.root, [])


def check_writable(out: Path) -> Path:
    """Return a path beside which a job can be begun, as nobody does now.

    Raises:
        ValueError: another process is writing there, or the place cannot be written.

    Example:
        >>> check_writable(Path("/dev/null/run"))
        Traceback (most recent call last):
        ValueError: out: expected a place that can be written, got /dev/null/run: ...; choose another folder
    """
    followed = _followed(out)
    with _parents(followed), locked(followed):
        return out


def _followed(out: Path) -> Path:
    """The path that links lead to, cleared of what a killed process left there."""
    try:
        followed = out.expanduser().resolve()
        recover(followed)
    except (OSError, RuntimeError) as error:  # too long a name, links in a circle
        raise unwritable(out, error) from None
    return followed


def unfinished(out: Path | str) -> tuple[Path, dict[str, Any]] | None:
    """The workplace of an unfinished job beside `out`, and that job; None where there is none.

    Example:
        >>> unfinished("nowhere") is None
        True
    """
    try:
        hidden = _hidden(Path(out).expanduser().resolve())
        if not any((hidden / "kept").iterdir()):
            return None
        job = _json(hidden / JOB)
    except (OSError, ValueError, RuntimeError):
        return None
    return (hidden, job) if isinstance(job, dict) else None


def recover(out: Path | str) -> None:
    """Undo what a killed process left half done beside `out`: its lock, and files on the way in or out.

    Example:
        >>> recover("nowhere")
    """
    out = Path(out).expanduser().resolve()
    hidden = _hidden(out)
    if clear_stale(out):
        undo(hidden)
        if hidden.is_dir() and not unfinished(out):
            shutil.rmtree(hidden, ignore_errors=True)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None  # of a pipe nobody sees the end


def _hidden(out: Path) -> Path:
    return out.parent / f".{out.name}.unfinished"


@contextmanager
def _workplace(out: Path, root: Path, job: Mapping[str, Any] | None, afresh: bool) -> Iterator[Workplace]:
    """The hidden folder beside `out`, made or found again under its lock; it stays where work is kept and not done."""
    hidden = _hidden(out)
    with _parents(out), locked(out):
        _check_job(out, job, afresh)
        done = False
        try:
            try:
                for name in ("new", "done"):
                    shutil.rmtree(hidden / name, ignore_errors=True)
                for name in ("new", "kept"):
                    (hidden / name).mkdir(parents=True, exist_ok=True)
                write_json(hidden / JOB, job)
            except OSError as error:
                raise unwritable(out, error) from None
            yield Workplace(hidden / "new", hidden / "kept", root)
            done = True
        finally:
            if done or not unfinished(out):
                shutil.rmtree(hidden, ignore_errors=True)


def _check_job(out: Path, job: Mapping[str, Any] | None, afresh: bool) -> None:
    """Refuse to begin a job where another has work that would be lost, unless that is asked for."""
    begun = unfinished(out)
    if begun is None or begun[1] == job:
        return
    if afresh:
        shutil.rmtree(begun[0])
        return
    resumable = f"pass resume={out}, " if "settings" in begun[1] else ""
    got, fix = f"one of other settings in {begun[0]}", f"run the same again, {resumable}or pass overwrite=True"
    raise fail("out", "no unfinished run", got, fix)


@contextmanager
def _parents(out: Path) -> Iterator[None]:
    """Make the folders above `out`, and remove those made where nothing has been put into them."""
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from None
    try:
        yield
    finally:
        with suppress(OSError):  # the first that holds something ends it
            for parent in missing:
                parent.rmdir()
