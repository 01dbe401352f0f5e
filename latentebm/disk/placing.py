"""Files moved into place all together or not at all, the replaced ones brought back where that fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from latentebm.files import write_json

__all__ = ["put", "sync", "undo"]

ROOT, MOVED = "root.json", "moved.json"


def put(hidden: Path, root: Path, replaced: Sequence[Path]) -> None:
    """Move the files under ``hidden/new`` to `root`, and those that they replace to ``hidden/old``.

    A failure undoes all, and after a kill `undo` does. ``config.json`` leaves first and comes last.

    Example:
        >>> import tempfile
        >>> hidden, root = (Path(tempfile.mkdtemp()) for _ in range(2))
        >>> (hidden / "new").mkdir(), (hidden / "new" / "a.txt").write_text("new"), (root / "a.txt").write_text("old")
        (None, 3, 3)
        >>> put(hidden, root, [])
        >>> (root / "a.txt").read_text()
        'new'
    """
    new, old = hidden / "new", hidden / "old"
    names = [file.relative_to(new) for file in _config_last(new)]
    leaving = dict.fromkeys([*replaced, *(root / name for name in names if (root / name).is_file())])
    old.mkdir()
    write_json(old / ROOT, str(root))
    try:
        _move(list(leaving), root, old / "files")
        write_json(old / MOVED, [str(name) for name in names])
        _move([new / name for name in names], new, root)
        for folder in {(root / name).parent for name in names}:
            sync(folder)
    except BaseException:  # a full disk, Ctrl-C
        undo(hidden)
        raise
    old.rename(hidden / "done")  # from here on the new files stand


def undo(hidden: Path) -> None:
    """Take back files that `put` moved in, and bring back those that it moved out, where it was not done.

    Example:
        >>> undo(Path("nowhere"))
    """
    old = hidden / "old"
    if not old.is_dir():
        return
    if (old / ROOT).is_file():
        root = Path(json.loads((old / ROOT).read_text(encoding="utf-8")))
        if (old / MOVED).is_file():
            for name in json.loads((old / MOVED).read_text(encoding="utf-8")):
                (root / name).unlink(missing_ok=True)
        kept = _config_last(old / "files")
        _move([f for f in kept if not (root / f.relative_to(old / "files")).exists()], old / "files", root)
    shutil.rmtree(old)


def _move(files: Sequence[Path], source: Path, target: Path) -> None:
    for file in files:
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place)  # across file systems too, where `out` is a mount point


def _config_last(folder: Path) -> list[Path]:
    return sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda file: file.name == "config.json")


def sync(folder: Path) -> None:
    """Let a folder's own entries reach the disk.

    Example:
        >>> sync(Path("/"))
    """
    with suppress(OSError):  # some file systems know no fsync of folders
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
