"""Settings: each declared once, and found in the estimator and on the command line; choices as names or objects."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

import pytest
import torch
import typer
from sklearn.base import clone
from torch import nn
from typer.testing import CliRunner

from latentebm.cli.debias import register
from latentebm.debiaser import Debiaser
from latentebm.disk.folders import run_folder
from latentebm.sampling import SNIS, Draws, Langevin
from latentebm.sampling.compiled.perceptrons import CompiledPerceptrons, compiled_form
from latentebm.settings.declaration import setting, settings_of
from latentebm.settings.fields import DebiaserSettings, Settings
from latentebm.settings.values import parse_proportions, parse_target
from latentebm.tilting.objectives import Jensen, Likelihood, Objective
from latentebm.tilting.spaces import DataSpace, LatentSpace

from .conftest import bars

QUICK = {"width": 16, "epochs": 1, "folds": 2, "tilt_steps": 5, "pool": 500, "clusters": 0}


@dataclass(kw_only=True, eq=False, repr=False)
class Cooled(DebiaserSettings):
    cooling: float = setting(0.5, "share of the temperature kept by each step", "Tilt")


@dataclass(kw_only=True, eq=False, repr=False)
class CooledDebiaser(Cooled, Debiaser):
    pass


@dataclass(kw_only=True, eq=False)
class CooledSettings(Cooled, Settings):
    pass


def test_a_new_setting_is_one_line():
    """Declared in a subclass, it is in the estimator, in its copies, in the job and in --help."""
    model = CooledDebiaser(cooling=0.25)
    assert clone(model).get_params()["cooling"] == 0.25
    assert CooledSettings(cooling=0.1).debiaser().get("cooling", 0.1) == 0.1
    app = typer.Typer()
    register(app, CooledSettings)
    text = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    assert "--cooling" in text
    assert "share of the temperature kept by each step" in text


def test_the_batch_size_reaches_the_training():
    data = bars(64, 0).images
    steps = [Debiaser(**QUICK, batch_size=size).fit_vae(data).vae_log_.steps for size in (16, 32)]
    assert steps == [4, 2]


def test_every_setting_stands_in_estimator_and_help():
    assert {s.name for s in settings_of(DebiaserSettings)} | {"verbose"} == set(Debiaser().get_params())
    assert all(s.help in " ".join(Debiaser.__doc__.split()) for s in settings_of(Debiaser))
    assert {f.name for f in fields(Settings)} == {s.name for s in settings_of(Settings)}


def test_the_estimator_keeps_scikit_learns_manners():
    objective = Jensen(penalty=0.5)
    model = Debiaser(objective=objective, latent_dim=3)
    copy = clone(model)
    assert copy.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert copy.set_params(latent_dim=4).latent_dim == 4
    assert model.objective is objective  # stored as given


@pytest.mark.parametrize(
    ("names", "objects"),
    [
        (
            {"objective": "jensen", "energy_penalty": 0.1, "calibrate": True},
            {"objective": Jensen(penalty=0.1, calibrate=True)},
        ),
        (
            {"space": "data", "folds": 2, "tilt_steps": 7, "positives": "raw"},
            {"space": DataSpace(folds=2, steps=7, positives="raw")},
        ),
        ({"folds": 3, "clusters": 4, "pool": 99}, {"space": LatentSpace(folds=3, clusters=4, pool=99)}),
    ],
)
def test_names_are_shortcuts_for_objects(names, objects):
    assert Debiaser(**names).method() == Debiaser(**objects).method()


@pytest.fixture(scope="module")
def arrays():
    return bars(120, 0).images, bars(24, 1).images


def test_objects_fit_as_their_names_do_and_are_saved(arrays, tmp_path):
    quick = {**QUICK, "pool": None}
    named = Debiaser(**quick, objective="jensen", energy_penalty=0.5).set_params(pool=500).fit(*arrays)
    given = Debiaser(**quick, objective=Jensen(penalty=0.5), sampler=SNIS(pool=500)).fit(*arrays)
    assert torch.equal(named.sample(20).x, given.sample(20).x)
    again = Debiaser.load(given.save(tmp_path / "given"))
    assert again.method() == given.method()
    assert torch.equal(again.sample(20).x, given.sample(20).x)
    assert json.loads((tmp_path / "given" / "config.json").read_text())["debiaser"]["objective"]["kind"] == "Jensen"
    langevin = Debiaser(**QUICK, sampler=Langevin(n_steps=2, warm_up=0)).fit(*arrays)
    assert Debiaser.load(langevin.save(tmp_path / "chains")).sample(3).diagnostics["steps"] == 2


class Half(Objective):
    """The likelihood at half its weight: the same optimum."""

    def loss(self, reference, base):
        return 0.5 * Likelihood().loss(reference, base)


class Prior:
    """Untilted draws."""

    def draw(self, target, n, *, generator, track):
        u = target.sample_base(n, generator=generator)
        return Draws(target.decode(u), u, -target.energy(u), {"sampler": "prior"})


def small(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(torch.Size(shape).numel()), 8), nn.Tanh(), nn.Linear(8, 1))


@pytest.mark.parametrize("space", ["latent", "data"])
def test_objects_of_the_users_own(space, arrays, tmp_path):
    own = {"objective": Half(), "sampler": Prior(), "energy": small}
    settings = {k: v for k, v in QUICK.items() if space == "latent" or k != "clusters"}
    model = Debiaser(**settings, space=space, **own).fit(*arrays)
    draws = model.sample(4)
    assert draws.diagnostics == {"sampler": "prior"}
    assert model.energy_.n_members == 2
    model.set_params(tilt_steps=60).fit_tilt(arrays[1])
    assert model.heldout_gain_ > 0
    model.save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected the object that was saved, a tests\.test_settings\.\w+"):
        Debiaser.load(tmp_path / "run").sample(1)
    again = Debiaser.load(tmp_path / "run", **own)
    assert torch.equal(again.sample(4).log_weight, model.sample(4).log_weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": Jensen(), "energy_penalty": 0.1}, "energy_penalty: expected 0.25 beside an object"),
        ({"objective": abs}, "objective: expected one of likelihood, .* or an object of type Objective"),
        ({"objective": {"kind": "Jensen", "weight": 1}}, "objective: expected a kind of"),
        ({"objective": {"kind": "os.system"}}, "objective: expected a kind of"),
        ({"objective": "jensen", "energy_penalty": 0}, "energy_penalty: expected a number"),
        ({"space": DataSpace(), "folds": 2}, "folds: expected None beside an object"),
        ({"space": DataSpace(), "objective": "score"}, "space: expected latent with objective=score"),
        ({"sampler": 3}, "sampler: expected one of snis"),
        ({"energy": 3}, "energy: expected a function"),
        ({"tilt_steps": 0}, "tilt_steps: expected a whole number"),
        ({"gradient_penalty": -1}, "gradient_penalty: expected"),
    ],
)
def test_choices_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Debiaser(**settings).check()


def test_chains_of_the_estimator_run_as_the_compiled_program(arrays, monkeypatch):
    calls, own = [], CompiledPerceptrons.value_and_grad
    monkeypatch.setattr(CompiledPerceptrons, "value_and_grad", lambda p, x: calls.append(len(x)) or own(p, x))
    model = Debiaser(**QUICK, sampler=Langevin(n_steps=3, warm_up=0)).fit(*arrays)
    model.sample(20)
    assert (len(calls) >= 3) == (compiled_form(model.energy_) is not None)  # None without a C++ compiler


@pytest.mark.parametrize(
    ("reference", "message"),
    [(torch.zeros(5, 1, 4, 4), "reference: expected images of shape"), (torch.zeros(1, 1, 8, 8), "at least 2 images")],
)
def test_the_pair_is_checked_before_the_vae_trains(arrays, reference, message):
    model = Debiaser(**QUICK)
    with pytest.raises(ValueError, match=message):
        model.fit(arrays[0], reference)
    assert not hasattr(model, "vae_")


@pytest.mark.parametrize("name", ["data", "data_root", "reference", "out"])
def test_paths_are_text(name):
    with pytest.raises(ValueError, match=rf"{name}: expected a path, got \{{'kind': 'x'\}}; pass"):
        Settings(**{name: {"kind": "x"}})


def test_values_are_parsed_once_and_written_as_text():
    settings = Settings(classes=[0, 2], proportions=[0.25, 0.75], target={"0": 0.5, "2": 0.5})
    assert settings.plain()["classes"] == "0,2"
    assert Settings(**settings.plain()).plain() == settings.plain()
    assert parse_proportions("long-tail:50").of("ab") == pytest.approx([50 / 51, 1 / 51])
    assert str(parse_target("a:.5,b:.5")) == "a:0.5,b:0.5"


def test_a_folder_is_reserved_while_a_run_writes_it(tmp_path):
    out = tmp_path / "deep" / "run"
    with run_folder(out, overwrite=False) as place:
        (place.new / "a.txt").write_text("a")
        with (
            pytest.raises(ValueError, match="out: expected a place that nobody else is writing"),
            run_folder(out, True),
        ):
            pass
    assert [p.name for p in out.parent.iterdir()] == ["run"]
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path / "other" / "run", overwrite=False):
        1 / 0  # noqa: B018
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    (tmp_path / ".left.lock").write_text(f"{__import__('socket').gethostname()} 999999999")
    with run_folder(tmp_path / "left", overwrite=False):
        pass
    assert not (tmp_path / ".left.lock").exists()
