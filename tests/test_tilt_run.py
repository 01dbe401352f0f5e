"""`latentebm tilt` on a model of twelve grey pixels: shares, files, draws again, the card and the hub."""

from __future__ import annotations

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from latentebm import HubTilt, WrappedModel, push_to_hub, stream_samples
from latentebm.cli.app import app
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt
from latentebm.sampling import Draws
from latentebm.workflow.tilt_redraw import TiltRun
from latentebm.workflow.tilt_results import _distinct
from latentebm.workflow.tilt_run import TiltSettings, run_tilt

MODULE = """
import torch
from torch import nn
from latentebm import WrappedModel

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16, bias=False), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    return WrappedModel(net.eval().requires_grad_(False), 4)

def bright(x):
    return ["yes" if m > 0.1 else "no" for m in x.mean((1, 2, 3))]
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "toy_pictures.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield "toy_pictures"
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def attribute_run(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bright"
    chosen = {"attributes": (f"{toy}:bright",), "targets": ("yes:.5,no:.5",)}
    return run_tilt(TiltSettings(model=f"{toy}:build", out=str(out), pool=4000, samples=500, **chosen))


FILES = ["README.md", "config.json", "figures", "metrics.json", "report.html", "samples.npz", "tilt.safetensors"]


def test_shares_of_an_attribute(attribute_run):
    assert sorted(p.name for p in attribute_run.iterdir()) == FILES
    rows = json.loads((attribute_run / "metrics.json").read_text())["shares"]["bright"]
    yes = next(row for row in rows if row["value"] == "yes")
    assert yes["before"] < 0.45
    assert yes["interval"][0] < 0.5 < yes["interval"][1]
    with np.load(attribute_run / "samples.npz") as saved:
        assert saved["images"].shape == (500, 1, 4, 4)
        assert 0 <= saved["images"].min() < saved["images"].max() <= 1
        assert saved["log_weight"].shape == (500,)


def test_draws_again_over_the_same_model_alone(attribute_run, monkeypatch, toy):
    draws = TiltRun(attribute_run).sample(300)
    assert float((2 * draws.x - 1).mean((1, 2, 3)).gt(0.1).float().mean()) == pytest.approx(0.5, abs=0.1)
    module = sys.modules[toy]
    other = module.build()
    other.decoder[0].weight.data += 1
    monkeypatch.setattr(module, "build", lambda: other)
    with pytest.raises(ValueError, match="got other weights"):
        TiltRun(attribute_run).sample(300)


def test_the_command_and_sample(toy, attribute_run, tmp_path):
    with np.load(attribute_run / "samples.npz") as saved:
        np.savez(tmp_path / "fair.npz", images=(255 * saved["images"][:100]).astype(np.uint8)[:, 0])
    ask = ["tilt", "--model", f"{toy}:build", "--reference", str(tmp_path / "fair.npz"), "--features", "pixels:1"]
    asked = [*ask, "--attribute", f"{toy}:bright", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*asked, "--pool", "3000", "--samples", "400"])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["shares"]["bright"]
    yes = next(r for r in rows if r["value"] == "yes")
    assert yes["after"] == pytest.approx(0.5, abs=0.12)
    assert yes["target"] == pytest.approx(0.5, abs=0.12)  # the reference's own share
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| bright | reference | before | after (95 % interval) |" in card
    assert str(tmp_path) not in card
    drawn = CliRunner().invoke(app, ["sample", str(tmp_path / "run"), "-n", "20", "--out", str(tmp_path / "x.npz")])
    assert drawn.exit_code == 0, drawn.output
    with np.load(tmp_path / "x.npz") as saved:
        assert len(saved["images"]) == 20


def test_each_draw_is_shown_once():
    codes = torch.tensor([[0.0], [1.0], [0.0], [2.0]])
    places = _distinct(Draws(codes, codes, torch.tensor([1.0, 3.0, 1.0, 2.0])))
    assert codes[places].flatten().tolist() == [1.0, 2.0, 0.0]


@pytest.mark.parametrize("form", ["npz", "png", "npy"])
def test_shards_of_a_tilt_go_on_to_the_same_bytes(form, attribute_run, tmp_path):
    name = "x.npy" if form == "npy" else "x"
    ask = ["sample", str(attribute_run), "-n", "250", "--format", form, "--shard-size", "100", "--out"]
    done = CliRunner().invoke(app, [*ask, str(tmp_path / "whole" / name)])
    assert done.exit_code == 0, done.output

    def cut(shards, description):
        yield shards[0]
        raise KeyboardInterrupt

    again = tmp_path / "again" / name
    with pytest.raises(KeyboardInterrupt):
        stream_samples(TiltRun(attribute_run), 250, again, form=form, size=100, track=cut)
    assert CliRunner().invoke(app, [*ask, str(again)]).exit_code == 0
    one, other = ({p.name: p.read_bytes() for p in d.rglob("*") if p.is_file()} for d in sorted(tmp_path.iterdir()))
    assert one == other
    if form == "npy":
        assert (np.load(again)[:, 0].mean((1, 2)) > 255 * 0.55).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--sampler", "nuts"], "sampler: expected that of the run"), (["--device", "cpu"], "device: expected that on")],
)
def test_what_a_tilt_run_has_fixed(options, message, attribute_run, tmp_path):
    done = CliRunner().invoke(app, ["sample", str(attribute_run), *options, "--out", str(tmp_path / "x.npz")])
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (lambda z: z, "run: expected one of images"),
        (lambda z: 255 * torch.ones(len(z), 1, 4, 4), "run: expected images in"),
    ],
)
def test_only_images_go_into_shards(decode, message, attribute_run, tmp_path, monkeypatch):
    run = TiltRun(attribute_run)
    monkeypatch.setattr(run.tilt, "decode", decode)
    monkeypatch.setattr(run, "draw", lambda n, **_: Draws(decode(torch.zeros(n, 4)), torch.zeros(n, 4), torch.zeros(n)))
    with pytest.raises(ValueError, match=message):
        stream_samples(run, 5, tmp_path / "x", size=5)


def test_the_card_and_the_hub(attribute_run, tmp_path, monkeypatch):
    card = (attribute_run / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: latentebm\n")
    assert "| yes | 0.500 |" in card

    hub, uploaded = pytest.importorskip("huggingface_hub.hub_mixin"), tmp_path / "hub"

    class Local:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **_):
            return shutil.copytree(folder_path, uploaded / repo_id)

    monkeypatch.setattr(hub, "HfApi", Local)
    push_to_hub(attribute_run, "me/bright")
    assert (uploaded / "me/bright/README.md").read_text() == card
    for folder, repo in ((tmp_path, "me/bright"), (attribute_run, "bright")):
        with pytest.raises((ValueError, FileNotFoundError), match="expected"):
            push_to_hub(folder, repo)
    model = TiltRun(attribute_run).tilt.model
    tilt = HubTilt.from_pretrained(uploaded / "me/bright", model=model, trusted=["toy_pictures"])
    tilt.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_bytes() == (attribute_run / "config.json").read_bytes()
    for place in (attribute_run, uploaded / "me/bright"):  # whose config.json the mixin would delete
        with pytest.raises(ValueError, match=r"save_directory: expected one without a config\.json"):
            tilt.save_pretrained(place)
    with pytest.raises(ValueError, match="pass model="):
        HubTilt.from_pretrained(tmp_path / "again")


def test_a_new_tilt_goes_to_the_hub_and_back(tmp_path, rng):
    model = WrappedModel(nn.Linear(2, 3), 2)
    tilt = LatentTilt(model, EnergyNet(2, generator=rng))
    HubTilt(tilt * 0.5).save_pretrained(tmp_path / "tilt")
    found = HubTilt.from_pretrained(tmp_path / "tilt", model=model)
    z = torch.randn(5, 2, generator=rng)
    assert torch.equal(found.energy(z), 0.5 * tilt.energy(z))
    assert "library_name: latentebm" in (tmp_path / "tilt/README.md").read_text()
    with pytest.raises(ValueError, match="model: expected the one that the tilt was saved from"):
        HubTilt.from_pretrained(tmp_path / "tilt", model=WrappedModel(nn.Linear(2, 3), 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nothing_here:build", "--reference", "x"], "expected a module that can be imported"),
        (["--model", "toy_pictures", "--reference", "x"], "expected package.module:name"),
        (["--model", "toy_pictures:none", "--reference", "x"], "expected a function there"),
        (["--model", "toy_pictures:build"], "expected a reference, or a target of each attribute, got neither"),
        (["--model", "toy_pictures:build", "--target", "yes:.5"], "expected one for each attribute"),
        (["--model", "toy_pictures:build", "--reference", "nowhere"], "--reference: expected mnist"),
        (
            ["--model", "toy_pictures:build", "--attribute", "toy_pictures:bright", "--target", "yes"],
            "expected shares such as",
        ),
    ],
)
def test_bad_options_write_nothing(options, message, toy, tmp_path):
    done = CliRunner().invoke(app, ["tilt", *options, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert not (tmp_path / "run").exists()
