"""Networks as safetensors files: tensors only, never code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from latentebm._version import __version__
from latentebm.checks import fail
from latentebm.files import sha256, write_atomic, write_json

__all__ = ["load_config", "load_weights", "save_model", "save_weights"]


def save_weights(path: Path | str, module: nn.Module) -> Path:
    """Write a module's state to a safetensors file, whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    return write_atomic(path, lambda temporary: save_file(state, temporary))


def load_weights(path: Path | str, module: nn.Module) -> None:
    """Load a safetensors file into a module of the same shape.

    Example:
        >>> import tempfile
        >>> first, second = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> load_weights(save_weights(Path(tempfile.mkdtemp()) / "net.safetensors", first), second)
        >>> bool(first.weight == second.weight)
        True
    """
    module.load_state_dict(load_file(path))


def save_model(
    folder: Path | str, parameters: Mapping[str, Any], modules: Mapping[str, nn.Module], learned: Mapping[str, Any]
) -> Path:
    """Write each module to ``NAME.safetensors``, and ``config.json`` with their shapes and SHA-256.

    `parameters` are the estimator's arguments, `modules` networks that have a `config`, and `learned` plain numbers
    that were learned beside the weights.

    Example:
        >>> import tempfile
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
