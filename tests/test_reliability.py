"""What must not be lost, misread or passed off: folders, interrupted chains, foreign models, image files."""

from __future__ import annotations

import json
import os
import shutil
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from latentebm import (
    HMC,
    NUTS,
    SNIS,
    Attribute,
    Langevin,
    LatentTilt,
    WrappedModel,
    load_images,
    tilt_attributes,
    tilt_generator,
)
from latentebm.data.images import as_images
from latentebm.disk.folders import check_out, run_folder, written
from latentebm.settings.fields import Settings
from latentebm.tilting.fit_tilt import TiltRecipe


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def put(out, name="config.json", text=None, overwrite=False):
    """A stand-in for a run: its folder holds one file besides config.json."""
    with run_folder(out, overwrite) as place:
        (place.new / "config.json").write_text(json.dumps({"latentebm": "0", "manifest": {}}))
        (place.new / "samples.npz").write_text(text or "new")


def test_overwriting_takes_only_what_a_run_wrote(tmp_path):
    out = tmp_path / "run"
    put(out, text="old")
    (out / "diary.txt").write_text("mine")
    out.chmod(0o750)
    put(out, text="new", overwrite=True)
    assert {p.name: p.read_text() for p in out.iterdir() if p.name != "config.json"} == {
        "samples.npz": "new",
        "diary.txt": "mine",
    }
    assert out.stat().st_mode & 0o777 == 0o750
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="out: expected an earlier run to overwrite"):
        put(tmp_path / "bert", overwrite=True)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_an_earlier_run_comes_back_where_its_successor_cannot_be_put(tmp_path, monkeypatch, fails_at):
    put(tmp_path / "run", text="old")
    calls, move = [], shutil.move

    def full(source, target):
        calls.append(source)
        if len(calls) == fails_at:
            raise OSError("no space left on device")
        return move(source, target)

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(OSError, match="no space"):
        put(tmp_path / "run", text="new", overwrite=True)
    assert (tmp_path / "run" / "samples.npz").read_text() == "old"
    assert written(tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_links_homes_and_empty_folders_are_used_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    put(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert written(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_out("~/fresh", overwrite=False) == tmp_path / "fresh"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    put(".")
    assert written(tmp_path / "here")
    assert os.listdir() != []  # the working folder is still this one


def test_a_run_that_was_killed_while_replacing_another_is_undone(tmp_path):
    out = tmp_path / "run"
    put(out, text="old")
    old = tmp_path / ".run.unfinished" / "old"
    (old / "files").mkdir(parents=True)
    for name in ("config.json", "samples.npz"):
        shutil.move(out / name, old / "files" / name)
    (old / "root.json").write_text(json.dumps(str(out)))
    (old / "moved.json").write_text('["samples.npz", "config.json"]')
    (out / "samples.npz").write_text("half")
    (tmp_path / ".run.lock").write_text(f"{socket.gethostname()} 999999999")
    with pytest.raises(ZeroDivisionError), run_folder(out, overwrite=True):
        1 / 0  # noqa: B018
    assert (out / "samples.npz").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_numbers_of_numpy_and_paths_are_written_as_plain_ones(bars_npz):
    settings = Settings(data=bars_npz, samples=np.int64(7), biased_fraction=np.float32(0.5))
    assert json.loads(json.dumps(settings.plain())) == {**settings.plain(), "data": str(bars_npz), "samples": 7}


class Shifted:
    """N(0, 1) tilted by −3u: N(3, 1)."""

    def sample_base(self, n, *, generator):
        return torch.randn(n, 1, generator=generator)

    def log_base(self, u):
        return -0.5 * u.square().sum(1)

    def energy(self, u):
        return -3 * u[:, 0]

    def potential(self, u):
        return self.energy(u) - self.log_base(u)

    def decode(self, u):
        return u


def test_interrupted_chains_are_not_draws():
    def interrupted(items, what):
        yield from items[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Langevin(n_steps=1000).draw(Shifted(), 50, generator=gen(), track=interrupted)


def large(threshold=0.0):
    return Attribute(lambda x: x[:, 0] > threshold, {False: 0.5, True: 0.5}, "large")


def test_a_decoder_that_writes_into_its_codes_does_no_harm():
    tilt = tilt_attributes(WrappedModel(lambda z: z.mul_(2), 2), large(2.0), generator=gen())
    draws = SNIS(pool=50_000).draw(tilt, 5000, generator=gen(1))
    assert torch.equal(draws.x, 2 * draws.latent)
    assert float((draws.x[:, 0] > 2).float().mean()) == pytest.approx(0.5, abs=4.9 * (0.25 / 5000 + 0.25 / 8000) ** 0.5)


class Own(nn.Module):
    """A model that is not wrapped, with a fault of its own."""

    latent_dim = 2

    def __init__(self, decode):
        super().__init__()
        self.decode = decode


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: WrappedModel(lambda z: z + torch.randn_like(z), 4),
            "decoder: expected the same data for the same codes",
        ),
        (
            lambda: tilt_attributes(Own(lambda z: z + torch.rand(1)), large(), generator=gen()),
            "the same data for the same",
        ),
        (lambda: tilt_attributes(Own(lambda z: z.mul_(2)), large(), generator=gen()), "codes left as they are"),
        (lambda: WrappedModel(lambda z: z - z.mean(0), 4), "decoder: expected data of a code whatever its batch"),
    ],
)
def test_decoders_that_are_no_functions_are_refused(make, message):
    torch.manual_seed(0)  # of the decoders, which draw from the global stream
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_any_float_type_are_tilted(dtype):
    model = WrappedModel(nn.Linear(4, 8).to(dtype).eval(), 4)
    reference = model.decode(torch.randn(100, 4, generator=gen())) + 0.1
    sizes = {"recipe": TiltRecipe(steps=20), "folds": 2, "pool": 500}
    tilt = tilt_generator(model, reference.to(dtype), features=lambda x: x[:, :1], **sizes, generator=gen())
    draws = SNIS(pool=500).draw(tilt, 5, generator=gen())
    assert draws.latent.dtype in (torch.float32, torch.float64)
    assert bool(draws.x.isfinite().all())


def test_hamiltonian_chains_over_hard_labels_are_refused():
    tilt = tilt_attributes(WrappedModel(lambda z: z, 2), large(), generator=gen())
    tilt.net.energy.theta.data += torch.tensor([1.0, -1.0])
    with pytest.raises(ValueError, match="piecewise constant"):
        HMC(chains=2, warm_up=5).draw(tilt, 20, generator=gen())


@pytest.mark.parametrize("sampler", [HMC(chains=2, warm_up=5), NUTS(chains=2, warm_up=5)])
def test_an_energy_without_a_bound_below_is_refused(sampler):
    tilt = LatentTilt(WrappedModel(nn.Identity(), 1), lambda u: torch.where(u[:, 0] > 1, -torch.inf, u[:, 0]))
    with pytest.raises(FloatingPointError, match="got -inf"):
        sampler.draw(tilt, 20, generator=gen())


RAMP = np.linspace(0, 255, 64).reshape(8, 8)


@pytest.mark.parametrize(
    ("mode", "pixels", "suffix"),
    [
        ("L", RAMP.astype(np.uint8), "png"),
        ("1", (RAMP > 100).astype(np.uint8) * 255, "png"),
        ("I;16", (RAMP * 257).astype(np.uint16), "png"),
        ("RGB", np.stack([RAMP] * 3, -1).astype(np.uint8), "bmp"),
        ("RGBA", np.stack([RAMP, RAMP, RAMP, RAMP * 0 + 255], -1).astype(np.uint8), "png"),
        ("P", RAMP.astype(np.uint8), "png"),
    ],
)
def test_image_files_of_every_mode_are_read_right(tmp_path, mode, pixels, suffix):
    image = Image.fromarray(pixels) if mode not in ("1", "P") else Image.fromarray(pixels).convert(mode)
    for c in "ab":
        (tmp_path / c).mkdir()
        image.save(tmp_path / c / f"0.{suffix}")
        (tmp_path / c / "._0.png").write_bytes(b"\0\5\26\7")  # what macOS leaves beside a file
    expected = (RAMP > 100) * 255 if mode == "1" else RAMP.astype(np.uint8)
    np.testing.assert_allclose(load_images(str(tmp_path)).images[0, 0].numpy(), expected, atol=1)


def test_broken_image_files_are_all_named(tmp_path):
    for c in "ab":
        (tmp_path / c).mkdir()
        Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / c / "0.png")
    (tmp_path / "a" / "empty.png").write_bytes(b"")
    (tmp_path / "b" / "cut.png").write_bytes((tmp_path / "b" / "0.png").read_bytes()[:60])
    with pytest.raises(
        ValueError, match=r"data: expected image files that can be read, got 2 that cannot: .*empty\.png.*cut\.png"
    ):
        load_images(str(tmp_path))


def test_arrays_of_every_kind_are_read_right_or_refused_with_advice_that_works():
    x = np.random.default_rng(0).random((6, 8, 8))
    assert set(as_images(x > 0.5).images.unique().tolist()) == {0, 255}
    for bad, fix, mended in (
        ((x * 4095).astype(np.uint16), "divide by the largest possible value", x),
        (x * 2 - 1, "divide", ((x * 2 - 1) + 1) / 2),
    ):
        with pytest.raises(ValueError, match=fix):
            as_images(bad)
        np.testing.assert_allclose(as_images(mended).images[:, 0].numpy(), x * 255, atol=1)
    assert as_images(x * (1 + 1e-7) / x.max()).images.max() == 255
    last = (np.stack([x, x / 2, x], -1) * 255).astype(np.uint8)
    with pytest.raises(ValueError, match=r"numpy\.moveaxis\(images, 3, 1\)"):
        as_images(last)
    assert np.array_equal(as_images(np.moveaxis(last, 3, 1)).images[0, 1], last[0, :, :, 1])


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog", "cat"]),
        np.array(["cat", "dog", "cat"]).astype("S"),
        np.arange(3, dtype=np.uint16),
        np.array([True, False, True]),
    ],
)
def test_labels_of_any_whole_or_text_type(labels):
    data = as_images(np.zeros((3, 8, 8), np.uint8), labels)
    names = np.array(data.class_names)[data.labels.numpy()]
    plain = labels.astype(str) if labels.dtype.kind == "S" else labels
    assert [str(name) for name in names] == [str(int(y)) if y.dtype.kind in "ub" else str(y) for y in plain]
