"""A tilt as a folder: its energies and their form, tied to the model by a fingerprint and energies of some points."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from latentebm.checks import fail
from latentebm.disk.folders import whole_files
from latentebm.disk.manifest import as_written, read_json, sealed, write_config
from latentebm.disk.outputs import check_place
from latentebm.disk.statefile import load_tensors
from latentebm.files import sha256, write_atomic
from latentebm.models.latent_model import LatentModel, check_model
from latentebm.models.storage.fingerprint import fingerprint
from latentebm.models.storage.pieces import Packer, Unpacker
from latentebm.rng import stream

if TYPE_CHECKING:
    from latentebm.models.base.abstract_tilt import Tilt

__all__ = ["load_tilt", "model_of", "save_tilt", "tilt_config"]

PROBED = 8  # base points whose energies are compared when a tilt is loaded
WEIGHTS = "tilt.safetensors"
NOTHING = "restore the file or save the tilt again"


def save_tilt(tilt: Tilt, folder: Path | str, *, overwrite: bool = False) -> Path:
    """Write a tilt without its model: ``config.json`` and ``tilt.safetensors``, as `Tilt.save` says."""
    folder = check_place(folder, "folder")
    if (folder / "config.json").exists() and not overwrite:
        raise fail("folder", "one without a saved tilt", f"{folder}", "choose another, or pass overwrite=True")
    packer = Packer(model_of(tilt))
    spec, found = packer.pack("tilt", tilt), fingerprint(model_of(tilt))
    config = {"tilt": spec, "model": found, "probe": _probe(tilt).tolist()}
    with whole_files(folder) as place:
        path = write_atomic(place.at(folder / WEIGHTS), lambda temporary: save_file(packer.tensors, temporary))
        write_config(place.at(folder / "config.json"), {**config, "manifest": {WEIGHTS: sha256(path)}})
    return folder


def load_tilt(folder: Path | str, model: LatentModel, *, trusted: Collection[str] = ()) -> Tilt:
    """Read a tilt that `save` wrote, over the model it was fitted to.

    Weights come from safetensors, the rest from JSON; their SHA-256 is checked. Functions and classes are imported
    by name, from this package and from those that are `trusted` only, since importing a module runs its code. The tilt
    is refused over a model with other weights or settings, and where its energies at eight fixed points are not what
    they were: a function that has changed shows there.

    Arguments:
        folder: which was written.
        model: the model it was saved from, with the same weights.
        trusted: names of packages whose functions the tilt may use.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: another model, a changed file or function, or a package that is not trusted.

    Example:
        >>> import tempfile
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.models.tilts import LatentTilt
        >>> model, other = (WrappedModel(torch.nn.Linear(2, 3), 2) for _ in range(2))
        >>> folder = (LatentTilt(model, EnergyNet(2)) * 0.5).save(tempfile.mkdtemp())
        >>> load_tilt(folder, model).strength
        0.5
        >>> load_tilt(folder, other)
        Traceback (most recent call last):
        ValueError: model: expected the one that the tilt was saved from, got other weights in ...; pass that model
    """
    folder = Path(folder)
    config = tilt_config(folder)
    check_model("model", model)
    with as_written(folder / "config.json", fix=None):
        return _loaded(folder, config, model, trusted)


def _loaded(folder: Path, config: dict[str, Any], model: LatentModel, trusted: Collection[str]) -> Tilt:
    """The tilt of a checked config."""
    _same_model(config["model"], fingerprint(model))
    tensors = load_tensors(folder / WEIGHTS)
    like = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    if like is not None:
        tensors = {name: value.to(like.device) for name, value in tensors.items()}
    tilt: Any = Unpacker(model, tensors, trusted).unpack("tilt", config["tilt"])
    if like is not None:
        tilt.to(like.device)
    saved, now = torch.tensor(config["probe"], dtype=torch.float64), _probe(tilt)
    if not torch.allclose(now, saved, rtol=1e-2, atol=1e-2):
        got = f"energies that differ by up to {float((now - saved).abs().max()):.3g} nats"
        fix = "pass the functions and the model as they were when it was saved"
        raise fail("tilt", "the energies that it was saved with", got, fix)
    return tilt


def tilt_config(folder: Path | str) -> dict[str, Any]:
    """The checked ``config.json`` of a folder that holds a tilt."""
    folder = Path(folder)
    for name in ("config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"folder: expected {name} in {folder}, found none; pass a folder that save wrote")
    path = folder / "config.json"
    config = sealed(path, read_json(path, "folder"))
    if not {"tilt", "model", "probe", "manifest"} <= set(config):
        raise fail("folder", "a tilt that save wrote", f"{folder} with another config.json", "pass a tilt's folder")
    with as_written(path):
        for name, digest in config["manifest"].items():
            file = folder / Path(name).name  # a shared run leaves its draws behind
            if (file.is_file() or name == WEIGHTS) and sha256(file) != digest:
                raise fail("folder", f"{name} as it was written", "other bytes", NOTHING)
    return config


def model_of(tilt: Tilt) -> Any:
    """The model object under a tilt, however it is composed."""
    inner: Any = getattr(tilt, "tilt", None) or getattr(tilt, "base", None)
    if hasattr(inner, "sample_base"):
        return model_of(inner)
    model = getattr(tilt, "model", None)
    if model is None:
        raise fail("tilt", "a tilt with a `model`", f"{type(tilt).__name__} without one", "set its model")
    return model


def _same_model(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless two fingerprints agree, naming what differs."""
    expected, fix = "the one that the tilt was saved from", "pass that model"
    for name in ("class", "latent_dim"):
        if saved[name] != now[name]:
            raise fail("model", f"{expected}, of {name} {saved[name]}", now[name], fix)
    # By way of JSON, in which tuples are lists.
    settings = json.loads(json.dumps(now["settings"]))
    for name in sorted(set(saved["settings"]) | set(settings)):
        if saved["settings"].get(name) != settings.get(name):
            wanted, got = (repr(side.get(name)) for side in (saved["settings"], settings))
            raise fail("model", f"{expected}, with {name}={wanted}", f"{name}={got}", fix)
    if saved["sha256"] != now["sha256"]:
        raise fail("model", expected, "other weights", fix)


@torch.no_grad()
def _probe(tilt: Tilt) -> Tensor:
    """Energies (8,) of fixed base points."""
    return tilt.energy(tilt.sample_base(PROBED, generator=stream(0))).double().cpu()
