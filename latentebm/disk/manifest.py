"""``config.json`` of a saved model or run: what is there, with the digests of its own parts and of the other files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentebm._version import __version__
from latentebm.checks import fail
from latentebm.disk.folders import recover
from latentebm.files import finite, sha256, write_json

__all__ = ["LARGEST", "add_files", "as_written", "load_config", "load_metrics", "read_json", "sealed", "write_config"]

FORMAT = 2  # of the folder; 1 had no digest of the config itself
LARGEST = 1 << 26  # bytes of a JSON file that is read
AGAIN = "restore the file or run again"


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    """Write a config with this version's number and the digest of all its parts.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_config(folder / "config.json", {"models": {}, "manifest": {}, "limit": 4.0})
        >>> _ = (folder / "config.json").write_text((folder / "config.json").read_text().replace("4.0", "2.0"))
        >>> load_config(folder)
        Traceback (most recent call last):
        ValueError: run: expected config.json as it was written, got ... edited or damaged; restore ...
    """
    own = {name: value for name, value in config.items() if name != "sha256"}
    parts = finite({**own, "latentebm": __version__, "format": FORMAT})
    return write_json(path, {**parts, "sha256": _digest(parts)})


def add_files(folder: Path, names: Sequence[str], **parts: Any) -> None:
    """Add files, and more parts, to the config of a folder that is being written."""
    config = read_json(folder / "config.json")
    manifest = {**config["manifest"], **{name: sha256(folder / name) for name in names}}
    write_config(folder / "config.json", {**config, **parts, "manifest": manifest})


def load_config(folder: Path | str) -> dict[str, Any]:
    """Read ``config.json`` after checking its own digest, and those of the files it names.

    Raises:
        FileNotFoundError: the folder lacks ``config.json`` or a weight file.
        ValueError: a file is not the one that was written, or is another program's or a later version's.

    Example:
        >>> load_config("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: run: expected config.json in nowhere, found none; pass a run folder
    """
    folder = Path(folder)
    recover(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"run: expected config.json in {folder}, found none; pass a run folder")
    config = sealed(path, read_json(path))
    with as_written(path):
        for name in config["models"]:
            if not (folder / f"{name}.safetensors").is_file():
                found = f"run: expected {name}.safetensors in {folder}, found none; restore it or run again"
                raise FileNotFoundError(found)
        for name, digest in config["manifest"].items():
            file = folder / Path(name).name
            if file.is_file() and sha256(file) != digest:
                raise fail("run", f"{name} as it was written", f"other bytes in {file}", AGAIN)
    return config


def load_metrics(folder: Path | str) -> dict[str, Any]:
    """Read a run's ``metrics.json`` after the same checks.

    Example:
        >>> load_metrics("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: run: expected config.json in nowhere, found none; pass a run folder
    """
    load_config(folder)
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"run: expected metrics.json in {folder}, found none; pass a run folder")
    return read_json(path)


def sealed(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return a config if it is one of ours, of this version or an earlier one, and unchanged."""
    version = config.get("latentebm")
    if not isinstance(version, str):
        raise fail("run", "a config.json of latentebm", f"another program's, {path}", "pass a run folder")
    if _number(version, path) > _number(__version__, path):
        fix = f"install latentebm {version} or later"
        raise fail("run", f"a folder of version {__version__} or earlier", f"one of {version}, {path.parent}", fix)
    own = {name: value for name, value in config.items() if name != "sha256"}
    if ("sha256" in config or "format" in config) and config.get("sha256") != _digest(own):
        raise fail("run", "config.json as it was written", f"{path}, edited or damaged", AGAIN)
    return config


def read_json(path: Path, name: str = "run") -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ValueError: it cannot be read, is too large, or holds something else.

    Example:
        >>> read_json(Path("/dev/null"))
        Traceback (most recent call last):
        ValueError: run: expected a JSON object in /dev/null, got no plain file; restore the file or run again
    """
    expected = f"a JSON object in {path}"
    try:
        if path.exists() and not path.is_file():  # of a pipe nobody would see the end
            raise ValueError("no plain file")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise fail(name, expected, str(error), AGAIN) from None
    if not isinstance(value, dict):
        raise fail(name, expected, f"a {type(value).__name__}", AGAIN)
    return value


@contextmanager
def as_written(path: Path, fix: str | None = AGAIN) -> Iterator[None]:
    """Say of a file that lacks a part, or holds it in another form, that it is not as it was written.

    A ValueError that does not name the folder names the file then, and this `fix`; None leaves its own.

    Example:
        >>> with as_written(Path("a.json")):
        ...     {}["missing"]
        Traceback (most recent call last):
        ValueError: run: expected a.json as it was written, got KeyError: 'missing' in a.json; restore ...
        >>> with as_written(Path("b/a.json")):
        ...     raise fail("n", "a number", "x", "pass n=1")
        Traceback (most recent call last):
        ValueError: n: expected a number, got x in b/a.json; restore the file or run again
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError) as error:
        got = " ".join(f"{type(error).__name__}: {error} in {path}".split())
        raise fail("run", f"{path.name} as it was written", got, AGAIN) from None
    except ValueError as error:
        if str(path) in str(error) or f"{path.parent}/" in str(error):
            raise
        said, _, own = str(error).rpartition("; ")
        if ": expected " in said:
            kept = fix is None or own.startswith("pass load(")  # what a file cannot hold is nobody's edit
            raise ValueError(f"{said} in {path}; {own if kept else fix}") from None
        raise fail("run", f"{path.name} as it was written", f"{error} in {path}", AGAIN) from None


def _digest(parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _number(version: str, path: Path) -> tuple[int, ...]:
    with as_written(path):
        parts = [part for part in version.split("+")[0].split(".")[:3] if part.isdecimal() and len(part) < 9]
        return tuple(map(int, parts))
