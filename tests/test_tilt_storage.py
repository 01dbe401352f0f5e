"""Saved tilts: every kind comes back with its energies, over its own model alone; what cannot be saved is refused."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from latentebm import load_tilt
from latentebm.adapters.from_module import WrappedModel
from latentebm.disk.manifest import write_config
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.composition import NegatedTilt
from latentebm.models.data_energies import DataEnergy
from latentebm.models.data_tilts import DataTilt, ElboTilt
from latentebm.models.energies import EnergyNet, Ensemble
from latentebm.models.features import Attribute, FeatureEnergy
from latentebm.models.tilts import LatentTilt
from latentebm.models.vae import VAE
from latentebm.tilting.any_model import Standardised, flat
from latentebm.tilting.attributes import tilt_attributes
from latentebm.tilting.objectives import Jensen

TRUSTED = [__name__.partition(".")[0]]


LIMIT = 0.38


def right(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)[:, 7] > LIMIT


def linear(shape: tuple[int, ...]) -> nn.Module:
    return nn.Linear(*shape, 1)


def jolted(energy: nn.Module) -> nn.Module:
    for weight in energy.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return energy


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    vae = VAE((1, 4, 4), 2, width=8, likelihood="gaussian").requires_grad_(False).eval()
    for weight in vae.parameters():
        weight *= 4
    return vae


def seen(vae: VAE) -> LatentTilt:
    energy = Standardised(jolted(EnergyNet(16, members=2, limit=3.0)), torch.zeros(16), torch.full((16,), 2.0))
    return LatentTilt(vae, FeatureEnergy(vae, flat, energy))


def shares(vae: VAE) -> LatentTilt:
    want = Attribute(right, {False: 0.5, True: 0.5}, "right")
    return tilt_attributes(vae, want, pool=5000, generator=torch.Generator().manual_seed(0))


KINDS = {
    "latent": lambda vae: LatentTilt(vae, jolted(EnergyNet(2, members=2)), Jensen(calibrate=True).transform()),
    "own network": lambda vae: LatentTilt(vae, Ensemble(linear, (2,), members=2, generator=torch.Generator())),
    "data": lambda vae: DataTilt(vae, jolted(DataEnergy((1, 4, 4))), noise=True),
    "elbo": lambda vae: ElboTilt(DataTilt(vae, DataEnergy((1, 4, 4)), noise=True), generator=torch.Generator()),
    "features": seen,
    "attribute": shares,
    "scaled": lambda vae: shares(vae) * 0.5,
    "composed": lambda vae: seen(vae) & ~shares(vae),
    "negated": lambda vae: NegatedTilt(LatentTilt(vae, jolted(EnergyNet(2))), bound=50.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_tilt_comes_back(kind, vae, tmp_path):
    tilt: Tilt = KINDS[kind](vae)
    again = load_tilt(tilt.save(tmp_path / "tilt"), vae, trusted=TRUSTED)
    u = tilt.sample_base(50, generator=torch.Generator().manual_seed(3))
    assert type(again) is type(tilt)
    assert torch.equal(again.energy(u), tilt.energy(u))
    assert not any(p.requires_grad for p in again.parameters())


def test_the_folder_holds_no_model_and_no_code(vae, tmp_path):
    shares(vae).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "tilt.safetensors"]
    assert (tmp_path / "tilt.safetensors").stat().st_size < 500


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_every_precision(dtype, tmp_path):
    model = WrappedModel(nn.Linear(2, 3).to(dtype).eval(), 2)
    tilt = LatentTilt(model, FeatureEnergy(model, flat, jolted(EnergyNet(3))))
    assert load_tilt(tilt.save(tmp_path), model).model is model


def changed(vae: VAE) -> VAE:
    other = VAE((1, 4, 4), 2, width=8, likelihood="gaussian")
    other.load_state_dict(vae.state_dict())
    next(other.parameters()).data += 1e-3
    return other.requires_grad_(False).eval()


class Prompted(WrappedModel):
    def __init__(self, prompt: str, dim: int = 2) -> None:
        super().__init__(nn.Identity(), dim)
        self.settings = {"prompt": prompt, "size": (2, 3)}


@pytest.mark.parametrize(
    ("saved", "loaded", "message"),
    [
        (lambda v: v, changed, "model: expected the one that the tilt was saved from, got other weights"),
        (lambda v: v, lambda v: VAE((1, 4, 4), 3, width=8), "of latent_dim 2, got 3"),
        (lambda v: Prompted("a cat"), lambda v: Prompted("a dog"), "with prompt='a cat', got prompt='a dog'"),
        (lambda v: v, lambda v: Prompted("a cat"), "of class VAE, got Prompted"),
    ],
)
def test_another_model_is_refused(saved, loaded, message, vae, tmp_path):
    LatentTilt(saved(vae), EnergyNet(2)).save(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_tilt(tmp_path, loaded(vae))


def test_what_a_function_uses_has_changed(vae, tmp_path, monkeypatch):
    shares(vae).save(tmp_path)
    monkeypatch.setitem(globals(), "LIMIT", -5.0)
    with pytest.raises(
        ValueError, match="tilt: expected the energies that it was saved with, got energies that differ"
    ):
        load_tilt(tmp_path, vae, trusted=TRUSTED)


def test_a_function_is_held_to_its_text(vae, tmp_path, monkeypatch):
    """A threshold that no probed point tells from the old one is noticed; a comment is none of its business."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    written = tmp_path / "words_of_a_user.py"

    def module(line: str):
        written.write_text(f"def up(x):\n    {line}\n")
        sys.modules.pop("words_of_a_user", None)
        importlib.invalidate_caches()
        return importlib.import_module("words_of_a_user")

    up = module("return x.flatten(1)[:, 7] > 0.38").up
    want = Attribute(up, {False: 0.5, True: 0.5}, "up")
    tilt_attributes(vae, want, pool=5000, generator=torch.Generator().manual_seed(0)).save(tmp_path / "tilt")
    module("return x.flatten(1)[:, 7] > 0.38  # bright enough")
    load_tilt(tmp_path / "tilt", vae, trusted=["words_of_a_user"])
    module("return x.flatten(1)[:, 7] > 0.3801")
    with pytest.raises(ValueError, match=r"tilt: expected words_of_a_user:up as it was .* got another text"):
        load_tilt(tmp_path / "tilt", vae, trusted=["words_of_a_user"])
    sys.modules.pop("words_of_a_user")


def test_untrusted_packages_are_not_imported(vae, tmp_path):
    shares(vae).save(tmp_path)
    with pytest.raises(ValueError, match=r"trusted: .* pass trusted=\["):
        load_tilt(tmp_path, vae)


@pytest.mark.parametrize("path", ["latentebm.files:os", "latentebm.files:nothing", "latentebm.nowhere:f", "latentebm"])
def test_a_folder_reaches_nothing_but_what_is_defined(path, vae, tmp_path):
    shares(vae).save(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert f"{__name__}:right" in text
    (tmp_path / "config.json").write_text(text := text.replace(f"{__name__}:right", path))
    with pytest.raises(ValueError, match=r"config.json as it was written, got .* edited or damaged"):
        load_tilt(tmp_path, vae)
    write_config(tmp_path / "config.json", json.loads(text))
    with pytest.raises(ValueError, match="tilt: expected a function or class where it was saved"):
        load_tilt(tmp_path, vae)


def local(vae: VAE) -> LatentTilt:
    return LatentTilt(vae, FeatureEnergy(vae, lambda x: x.flatten(1), EnergyNet(16)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (local, "tilt.energy.features: expected a function that can be imported, got <lambda>"),
        (lambda v: LatentTilt(v, nn.Flatten(0)), r"tilt.energy: expected a module with a method arguments\(\), got Fl"),
        (lambda v: LatentTilt(v, nn.Flatten(0), torch.nn.Identity().forward), "tilt.energy: expected a module"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(make, message, vae, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(vae).save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def cut(folder: Path) -> None:
    data = (folder / "tilt.safetensors").read_bytes()
    (folder / "tilt.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (cut, ValueError, "tilt.safetensors as it was written, got other bytes"),
        (lambda f: (f / "tilt.safetensors").unlink(), FileNotFoundError, "expected tilt.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), ValueError, "a JSON object in .*config.json"),
        (lambda f: (f / "config.json").write_text("{}"), ValueError, "a config.json of latentebm"),
        (lambda f: write_config(f / "config.json", {}), ValueError, "a tilt that save wrote"),
    ],
)
def test_damaged_folders_are_named(damage, kind, message, vae, tmp_path):
    damage(LatentTilt(vae, EnergyNet(2)).save(tmp_path))
    with pytest.raises(kind, match=message):
        load_tilt(tmp_path, vae)


def test_a_saved_tilt_is_replaced_only_when_asked(vae, tmp_path):
    LatentTilt(vae, EnergyNet(2)).save(tmp_path)
    with pytest.raises(ValueError, match="folder: expected one without a saved tilt"):
        shares(vae).save(tmp_path)
    shares(vae).save(tmp_path, overwrite=True)
    assert load_tilt(tmp_path, vae, trusted=TRUSTED).net.features.attributes[0].name == "right"
