"""Networks as safetensors files: tensors only, never code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from latentebm.checks import fail
from latentebm.disk.folders import whole_files
from latentebm.disk.manifest import as_written, load_config, read_json, write_config
from latentebm.disk.outputs import check_place
from latentebm.disk.statefile import load_tensors
from latentebm.files import sha256, write_atomic

__all__ = ["load_weights", "save_model", "save_weights"]


def save_weights(path: Path | str, module: nn.Module) -> Path:
    """Write a module's state to a safetensors file, whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    return write_atomic(path, lambda temporary: save_file(state, temporary))


def load_weights(path: Path | str, module: nn.Module) -> None:
    """Load a safetensors file into a module of the same shape.

    Raises:
        ValueError: the file cannot be read, or is of another shape.

    Example:
        >>> import tempfile
        >>> first, second = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> load_weights(save_weights(Path(tempfile.mkdtemp()) / "net.safetensors", first), second)
        >>> bool(first.weight == second.weight)
        True
    """
    with as_written(Path(path)):
        module.load_state_dict(load_tensors(path))


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
    folder, files = check_place(folder, "folder"), [f"{name}.safetensors" for name in modules]
    with whole_files(folder) as place:
        for name, module in modules.items():
            save_weights(place.at(folder / f"{name}.safetensors"), module)
        manifest = {name: sha256(place.at(folder / name)) for name in files}
        config = {
            "debiaser": dict(parameters),
            "models": {name: module.config for name, module in modules.items()},
            "learned": dict(learned),
            "manifest": manifest,
        }
        write_config(place.at(folder / "config.json"), _over(folder, config))
    return folder


def _over(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The config with what a run of the same model has besides; another model's run, or other files, are refused."""
    path = folder / "config.json"
    if not path.exists():
        return config
    old = read_json(path, "folder")
    if "latentebm" not in old or not set(old.get("models", ())) & set(config["models"]):
        raise fail("folder", "one without another's config.json", f"{path}", "choose another folder")
    if "settings" not in old:
        return config
    old = load_config(folder)
    if any(old["manifest"].get(name) != digest for name, digest in config["manifest"].items()):
        raise fail("folder", "one that is no run of another model", f"{folder}", "choose another folder")
    return {**old, **config, "manifest": {**old["manifest"], **config["manifest"]}}
