"""Decoders that take long: what they made stays on disk, goes on after a kill to the same bits, and fits in memory."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

from latentebm import Attribute, TwoStage, WrappedModel, load_tilt, tilt_attributes, tilt_generator
from latentebm.cli.app import app
from latentebm.models.decode_time import pool_size
from latentebm.models.energies import EnergyNet
from latentebm.models.features import FeatureEnergy
from latentebm.models.storage.spooled_model import SpooledModel
from latentebm.models.tilts import LatentTilt
from latentebm.progress import silent
from latentebm.tilting.any_model import flat
from latentebm.workflow.tilt_run import TiltSettings, run_tilt

MODULE = """
import torch
from torch import nn
from latentebm import WrappedModel

COUNTS = []

class Net(nn.Sequential):
    def forward(self, z):
        COUNTS.append(len(z))
        return super().forward(z)

def build():
    torch.manual_seed(0)
    net = Net(nn.Linear(4, 16, bias=False), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    return WrappedModel(net.eval().requires_grad_(False), 4, batch_size=50)

def bright(x):
    return ["yes" if m > 0.1 else "no" for m in x.mean((1, 2, 3))]
"""


@pytest.fixture(scope="module")
def costly(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "costly_pictures.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    import costly_pictures

    yield costly_pictures
    sys.path.remove(str(folder))


def test_data_come_back_from_disk(costly, tmp_path, rng):
    plain = costly.build()
    model, z = SpooledModel(plain, tmp_path / "spool", batch_size=7), torch.randn(20, 4, generator=rng)
    assert torch.allclose(model.decode(z), plain.decode(z), atol=1e-6)
    first, made = model.decode(z), model.decoded
    again = SpooledModel(plain, tmp_path / "spool", batch_size=7)
    assert torch.equal(again.decode(z[3:9]), first[3:9])
    assert again.decoded == 0
    assert made == 20
    u = z.clone().requires_grad_()
    assert again.decode(u).requires_grad
    assert again.data_shape == (1, 4, 4)
    (tmp_path / "spool" / ".00000009-x.npy").write_bytes(b"half")  # as a killed write leaves it
    assert torch.equal(SpooledModel(plain, tmp_path / "spool").decode(z), first)


def test_another_prompt_does_not_read_it(tmp_path):
    made = [WrappedModel(lambda z: z, 2, settings={"prompt": p}) for p in ("a cat", "a dog")]
    SpooledModel(made[0], tmp_path)
    with pytest.raises(ValueError, match="folder: expected data that this model decoded, got those of another model"):
        SpooledModel(made[1], tmp_path)


def test_a_tilt_over_it_is_that_of_the_model(costly, tmp_path):
    model = SpooledModel(costly.build(), tmp_path / "spool")
    tilt = LatentTilt(model, FeatureEnergy(model, flat, EnergyNet(16)))
    assert load_tilt(tilt.save(tmp_path / "tilt"), costly.build()).model.latent_dim == 4


@pytest.mark.parametrize("sampler", ["snis", "two-stage"])
def test_a_killed_run_goes_on_to_the_same_bits(sampler, costly, tmp_path, monkeypatch):
    monkeypatch.setattr("latentebm.workflow.tilt_results.plot_image_grid", lambda *_, **__: Figure(figsize=(1, 1)))
    monkeypatch.setattr("latentebm.workflow.tilt_card.plot_targets", lambda _: Figure(figsize=(1, 1)))
    chosen = {"attributes": ("costly_pictures:bright",), "targets": ("yes:.5,no:.5",), "spool": True}
    asked = {"model": "costly_pictures:build", "pool": 600, "samples": 100, "sampler": sampler, **chosen}
    whole = run_tilt(TiltSettings(out=str(tmp_path / "whole"), **asked))
    once = sum(costly.COUNTS)

    def killed(items, description):
        for i, item in enumerate(silent(items, description)):
            if description == ("pool" if sampler == "snis" else "decode") and i == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        run_tilt(TiltSettings(out=str(tmp_path / "again"), **asked), track=killed if sampler != "snis" else stopped)
    costly.COUNTS.clear()
    again = run_tilt(TiltSettings(out=str(tmp_path / "again"), **asked))
    assert sum(costly.COUNTS) < once / 2
    for name in ("samples.npz", "tilt.safetensors", "metrics.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def stopped(items, description):
    """Stop where the draws' own pool has been decoded."""
    yield from items
    if description == "before":
        raise KeyboardInterrupt


def test_large_data_are_decoded_a_few_at_a_time(rng):
    most = []

    def decoder(z):
        most.append(len(z))
        return z[:, :1, None, None].expand(-1, 3, 256, 256)

    want = Attribute(lambda x: x[:, 0, 0, 0] > 0, {False: 0.4, True: 0.6})
    model = WrappedModel(decoder, 2)
    draws = TwoStage(decodes=200, pilot=50, pool=2000).draw(
        tilt_attributes(model, want, pool=300, generator=rng), 20, generator=rng
    )
    assert draws.x.shape == (20, 3, 256, 256)
    assert max(most) == 16


def test_two_stages_with_long_codes(rng):
    """More numbers in a code than draws in the pilot: the surrogate finds the direction that matters."""
    tilt = LatentTilt(WrappedModel(lambda z: z, 200), lambda z: 20 * z[:, :100].mean(1))
    draws = TwoStage(decodes=1000, pilot=300, pool=20_000).draw(tilt, 500, generator=rng)
    assert float(draws.latent[:, :100].mean()) == pytest.approx(-0.2, abs=0.02)


@pytest.mark.parametrize(("pool", "message"), [("soon", "pool: expected a number of decodes or a time"), (1, "pool")])
def test_bad_pools(pool, message, rng):
    model, want = WrappedModel(lambda z: z, 2), Attribute(lambda x: x[:, 0] > 0, {False: 0.4, True: 0.6})
    with pytest.raises(ValueError, match=message):
        tilt_attributes(model, want, pool=pool, generator=rng)
    with pytest.raises(ValueError, match=message):
        tilt_generator(model, torch.randn(30, 2), features=lambda x: x, pool=pool, generator=rng)


def test_a_pool_in_seconds(monkeypatch):
    monkeypatch.setattr("latentebm.models.decode_time.decode_seconds", lambda model: 0.5)
    model = WrappedModel(lambda z: z, 2)
    assert pool_size(model, "2min") == 240
    with pytest.raises(ValueError, match="pool: expected time for at least 100 decodes, got 20s, in which 40 are made"):
        pool_size(model, "20s")


def test_seconds_from_the_shell(costly, tmp_path, monkeypatch):
    monkeypatch.setattr("latentebm.workflow.tilt_run.pool_size", lambda model, pool: 1200 if pool == "30s" else 0)
    ask = ["tilt", "--model", "costly_pictures:build", "--attribute", "costly_pictures:bright", "--target"]
    more = ["yes:.5,no:.5", "--pool", "30s", "--sampler", "two-stage", "--samples", "60", "--out", str(tmp_path / "x")]
    done = CliRunner().invoke(app, [*ask, *more])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text())
    assert metrics["tilted"]["sampler"] == "two-stage"
    assert metrics["tilted"]["decodes"] == 1440
    assert 30 < len(metrics["energies"]) <= 60
    assert "energy of each" in (tmp_path / "x" / "report.html").read_text().lower()
    for wrong in (["--pool", "soon"], ["--sampler", "magic"]):
        done = CliRunner().invoke(app, [*ask, "yes:.5,no:.5", *wrong, "--out", str(tmp_path / "y")])
        assert done.exit_code == 2, done.output
