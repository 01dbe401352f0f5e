"""Edited and damaged folders: whatever is changed, one line says so, and nothing of it is used."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random
import shutil

import pytest
import torch
from torch import nn

from latentebm import LatentTilt, WrappedModel
from latentebm.debiaser import Debiaser
from latentebm.disk.manifest import load_config, write_config
from latentebm.disk.statefile import read_state, write_state
from latentebm.models.energies import EnergyNet
from latentebm.models.seen.image_classifier import Classifier
from latentebm.models.storage.tilt_folder import load_tilt
from latentebm.report import render_report
from latentebm.sampling import ReplayBuffer
from latentebm.settings.config import read_config
from latentebm.settings.fields import Settings

GONE = object()
VALUES = (GONE, None, {}, [], "x", -1, 1e300, float("nan"), True, 10**30, [None], {"kind": "Nope"})
AS_SETTINGS = lambda d: Settings(**read_config(d / "config.json"))  # noqa: E731
JOBS = {
    "config.json": (
        lambda d: Debiaser.load(d).check(), render_report, AS_SETTINGS,
    ),
    "metrics.json": (render_report,),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small run folder that is quick to read."""
    import numpy as np

    from latentebm.disk.manifest import add_files

    folder, rng = tmp_path_factory.mktemp("saved") / "run", np.random.default_rng(0)
    model = Debiaser(width=8, epochs=1, folds=2, tilt_steps=2, pool=500)
    model.fit(rng.random((64, 8, 8)), rng.random((16, 8, 8))).save(folder)
    t = {"heldout_gain": 0.5, "ess": 0.4, "pareto_k": 0.1, "pareto_k_threshold": 0.7, "log_z": 0.0, "log_z_se": 0.1}
    t |= {"reliable": True, "sampler": "snis", "duplicates": 0.0}
    metrics = {"judged": False, "unjudged": "", "seconds": {"total": 1.0}, "generator": {"train_loss": 3.0}}
    metrics["tilted"] = t
    data = {"class_names": [], "biased": None, "reference": None}
    (folder / "metrics.json").write_text(json.dumps({**metrics, "data": data, "samples": 5}))
    add_files(folder, ["metrics.json"], settings=Settings(width=8, epochs=1, folds=2, tilt_steps=2, pool=500).saved())
    render_report(folder)
    return folder


def paths(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, part in inner:
        yield from paths(part, (*path, key))


def edited(value, path, new):
    if not path:
        return None if new is GONE else new
    value = copy.deepcopy(value)
    at = value
    for key in path[:-1]:
        at = at[key]
    if new is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return value


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("sealed", [False, True], ids=["as edited", "with a digest made again"])
def test_no_edit_is_used_or_ends_in_a_traceback(saved, tmp_path, name, sealed):
    whole = json.loads((saved / name).read_text())
    edits = [(path, new) for path in paths(whole) for new in VALUES]
    shutil.copytree(saved, tmp_path / "run")
    config = load_config(saved)
    for path, new in random.Random(0).sample(edits, min(120, len(edits))):
        text = json.dumps(value := edited(whole, path, new))
        if text == json.dumps(whole):
            continue
        (tmp_path / "run" / name).write_text(text)
        if sealed and name == "metrics.json":
            own = {**config["manifest"], name: hashlib.sha256(text.encode()).hexdigest()}
            write_config(tmp_path / "run" / "config.json", {**config, "manifest": own})
        elif sealed and isinstance(value, dict):
            write_config(tmp_path / "run" / name, value)
        for job in JOBS[name]:
            try:
                job(tmp_path / "run")
            except (ValueError, FileNotFoundError) as error:
                assert str(tmp_path) in str(error) or job is AS_SETTINGS  # noqa: PT017 - whichever of the two it is
            else:
                assert sealed, (path, new)


def flow_of(d):
    from latentebm.tilting.baked_tilt import BakedTilt

    return BakedTilt.load(d, FLAT).log_base(torch.ones(2, 2))


FLAT = LatentTilt(WrappedModel(nn.Identity(), 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)))
LOADS = {
    "flow": flow_of,
    "tilt": lambda d: load_tilt(d, FLAT.model).energy(torch.ones(2, 2)),
    "buffer": lambda d: ReplayBuffer.load(d / "b.safetensors").x,
    "classifier": lambda d: Classifier.load(d / "c.safetensors")(torch.ones(1, 1, 8, 8)),
    "state": lambda d: read_state(d / "s.safetensors")["a"],
}


@pytest.fixture
def kept(tmp_path):
    """One folder of each kind that is saved."""
    from latentebm.tilting.baked_tilt import BakedTilt, spline_flow

    flow = spline_flow(2, transforms=1, hidden=(4,), generator=torch.Generator())
    BakedTilt(FLAT, flow).save_flow(tmp_path / "flow")
    LatentTilt(FLAT.model, EnergyNet(2)).save(tmp_path / "tilt")
    ReplayBuffer(torch.randn(9, 2)).save(tmp_path / "buffer" / "b.safetensors")
    Classifier((1, 8, 8), 3).save(tmp_path / "classifier" / "c.safetensors")
    write_state(tmp_path / "state" / "s.safetensors", {"a": torch.ones(3)})
    return tmp_path


@pytest.mark.parametrize("kind", LOADS)
def test_saved_parts_are_read_as_they_were_or_named(kept, kind):
    folder, rng = kept / kind, random.Random(0)
    whole = LOADS[kind](folder)
    for file in folder.iterdir():
        text = file.read_bytes()
        flips = [(at := rng.randrange(len(text)), bytes([text[at] ^ (1 << rng.randrange(8))])) for _ in range(20)]
        for new in [*(text[:i] + bit + text[i + 1 :] for i, bit in flips), b"", text[:9], text[:-1], os.mkfifo]:
            file.unlink()
            new(file) if callable(new) else file.write_bytes(new)
            try:
                assert torch.equal(LOADS[kind](folder), whole)
            except (ValueError, FileNotFoundError) as error:
                assert str(folder) in str(error)  # noqa: PT017
        file.unlink()
        file.write_bytes(text)


@pytest.mark.parametrize("kind", ["flow", "tilt"])
def test_sealed_edits_of_saved_parts_are_named(kept, kind):
    folder = kept / kind
    config = load_config(folder) if kind == "flow" else json.loads((folder / "config.json").read_text())
    edits = [(path, new) for path in paths(config) for new in VALUES if path]
    for path, new in random.Random(0).sample(edits, 60):
        write_config(folder / "config.json", edited(config, path, new))
        with contextlib.suppress(ValueError, FileNotFoundError):
            LOADS[kind](folder)
