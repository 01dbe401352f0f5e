"""Places that somebody names for a file or a folder to be written: checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from latentebm.checks import fail
from latentebm.disk.locks import unwritable

__all__ = ["check_files", "check_place"]


def check_place(out: Path | str, what: Literal["file", "folder"]) -> Path:
    """Return `out` as a path where a file, or a folder, is or can be, ``~`` replaced by the home folder.

    Raises:
        ValueError: the other of the two is there, or it or a folder above is a link that leads nowhere, or it is no
            possible path.

    Example:
        >>> check_place("/", "file")
        Traceback (most recent call last):
        ValueError: out: expected a file, got /, a folder; choose another name
    """
    try:
        path = Path(out).expanduser()
        lost = [link for link in (path, *path.parents) if link.is_symlink() and not link.exists()]
        if lost:
            below = "" if lost[0] == path else f", below {lost[0]}"
            got = f"{path}{below}, a link to {lost[0].readlink()}, which does not exist"
            raise fail("out", f"a {what}, or a link to one", got, "create it or choose another name")
        if path.exists() and path.is_dir() != (what == "folder"):
            other = "a file" if what == "folder" else "a folder"
            raise fail("out", f"a {what}", f"{path}, {other}", "choose another name")
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder that cannot be found
        raise unwritable(Path(out), error) from None
    return path


def check_files(outs: Iterable[Path | str], overwrite: bool) -> list[Path]:
    """Return paths that files may be written to; ValueError if one exists, unless they may be overwritten.

    Example:
        >>> check_files(["/dev/null"], overwrite=False)
        Traceback (most recent call last):
        ValueError: out: expected files that do not exist yet, got /dev/null; choose another name, ...=True
    """
    paths = [check_place(out, "file") for out in outs]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise fail("out", "files that do not exist yet", f"{there[0]}", "choose another name, or pass overwrite=True")
    return paths
