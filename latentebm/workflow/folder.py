"""Run folders: they appear whole, built under a hidden name and renamed, and know the digests of their files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from latentebm._version import __version__
from latentebm.checks import fail
from latentebm.files import sha256, write_json
from latentebm.models.saving import save_weights

__all__ = ["check_out", "load_config", "run_folder", "save_model"]


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


def save_model(
    folder: Path | str, parameters: Mapping[str, Any], modules: Mapping[str, nn.Module], learned: Mapping[str, Any]
) -> Path:
    """Write each module to ``NAME.safetensors``, and ``config.json`` with their shapes and SHA-256.

    Arguments:
        folder: created if need be.
        parameters: constructor arguments of the estimator.
        modules: networks that have a `config`, by name.
        learned: plain numbers that were learned beside the weights.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> net.config = {"in": 1}
        >>> folder = save_model(tempfile.mkdtemp(), {"a": 1}, {"net": net}, {})
        >>> load_config(folder)["models"]
        {'net': {'in': 1}}
    """
    folder = Path(folder)
    manifest = {}
    for name, module in modules.items():
        path = save_weights(folder / f"{name}.safetensors", module)
        manifest[path.name] = sha256(path)
    config = {
        "latentebm": __version__,
        "debiaser": dict(parameters),
        "models": {name: module.config for name, module in modules.items()},
        "learned": dict(learned),
        "manifest": manifest,
    }
    write_json(folder / "config.json", config)
    return folder


def load_config(folder: Path | str) -> dict[str, Any]:
    """Read ``config.json`` after checking the SHA-256 of every weight file it names.

    Raises:
        FileNotFoundError: the folder lacks ``config.json`` or a weight file.
        ValueError: a weight file is not the one that was written.

    Example:
        >>> load_config("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: run: expected config.json in nowhere, found none; pass a run folder
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"run: expected config.json in {folder}, found none; pass a run folder")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in config["models"]:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"run: expected {path.name} in {folder}, found none; restore it or run again")
        if sha256(path) != config["manifest"][path.name]:
            raise fail("run", f"{path.name} as it was written", "other bytes", "restore the file or run again")
    return config
