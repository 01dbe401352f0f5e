"""Run folders that appear whole: built under a hidden name beside their place, then renamed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise fail("out", "a folder that does not exist yet", f"{path}", "choose another, or pass --overwrite")
        if not (path / "config.json").is_file():
            raise fail(
                "out", "an earlier run to overwrite", f"{path}, which holds other files", "choose another folder"
            )
    elif path.exists() and not path.is_dir():
        raise fail("out", "a folder", f"{path}, a file", "choose another name")
    return path


@contextmanager
def run_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `out` once the block has succeeded, and vanishes if not.

    Raises:
        ValueError: see `check_out`.
        OSError: the place cannot be written.

    Example:
        >>> out = Path(tempfile.mkdtemp()) / "run"
        >>> with run_folder(out, overwrite=False) as folder:
        ...     _ = (folder / "a.txt").write_text("a")
        >>> [p.name for p in out.iterdir()]
        ['a.txt']
    """
    check_out(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as hidden:
        new, old = Path(hidden) / "new", Path(hidden) / "old"
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
