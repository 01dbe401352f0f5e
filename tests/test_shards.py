"""Streamed draws: the same bytes whatever interrupts them, and the law of the tilt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentebm import Debiaser, stream_samples
from latentebm.workflow import shards


@pytest.fixture(scope="module")
def model():
    images = np.random.default_rng(0).random((40, 4, 4))
    return Debiaser(width=8, epochs=1, folds=2, tilt_steps=2, pool=300).fit(images, images[:9])


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class StopError(Exception):
    pass


def stopping(after):
    def track(items, description):
        for i, item in enumerate(items):
            if i == after:
                raise StopError
            yield item

    return track


@pytest.mark.parametrize("form", ["npz", "png", "npy"])
def test_an_interrupted_job_goes_on_to_the_same_bytes(model, tmp_path, form):
    name = "a.npy" if form == "npy" else "a"
    whole = stream_samples(model, 25, tmp_path / "whole" / name, form=form, size=10)
    with pytest.raises(StopError):
        stream_samples(model, 25, tmp_path / "cut" / name, form=form, size=10, track=stopping(2))
    assert (tmp_path / "cut" / name).exists() == (form != "npy")
    with pytest.raises(ValueError, match=r"out: expected shards of the same job, got one of seed=0"):
        stream_samples(model, 25, tmp_path / "cut" / name, form=form, size=10, seed=1)
    drawn = []
    stream_samples(
        model, 25, tmp_path / "cut" / name, form=form, size=10, track=lambda s, _: (drawn.append(list(s)), s)[1]
    )
    assert drawn == [[2]]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    stream_samples(model, 12, tmp_path / "cut" / name, form=form, size=10, seed=1, overwrite=True)
    assert len(list((tmp_path / "cut").rglob("shard-*.npz"))) == (2 if form == "npz" else 0)
    assert whole.exists()


def test_formats_hold_the_same_images(model, tmp_path):
    npz = stream_samples(model, 25, tmp_path / "npz", size=10)
    png = stream_samples(model, 25, tmp_path / "png", size=10, form="png")
    npy = np.load(stream_samples(model, 25, tmp_path / "x.npy", size=10, form="npy"))
    archives = [np.load(file) for file in sorted(npz.glob("*.npz"))]
    assert (np.concatenate([a["images"] for a in archives]) == npy).all()
    assert all((np.asarray(Image.open(file)) == npy[int(file.stem), 0]).all() for file in png.rglob("*.png"))
    assert len(list(png.rglob("*.png"))) == len(npy) == 25
    codes = torch.from_numpy(np.concatenate([a["latent"] for a in archives]))
    assert len(codes.unique(dim=0)) > 20  # shards have streams of their own
    torch.testing.assert_close(torch.from_numpy(npy) / 255, model.vae_.decode(codes), atol=0.51 / 255, rtol=0)
    assert json.loads((npz / "manifest.json").read_text())["n"] == 25


def test_what_is_not_ours_stays(model, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="out: expected a place where nothing is yet"):
        stream_samples(model, 5, tmp_path / "a")
    (tmp_path / "b").mkdir()
    stream_samples(model, 5, tmp_path / "b")
    (tmp_path / "b" / "mine.txt").write_text("mine")
    shards.FORMATS["npz"](tmp_path / "b", 5, 10_000, ()).clear()
    assert contents(tmp_path / "b") == {"mine.txt": b"mine"}
