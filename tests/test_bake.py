"""Flows fitted to tilts: weights keep the draws exact, whatever the flow; closed forms of Gaussian tilts."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from zuko.flows import MAF

from latentebm.adapters.from_module import WrappedModel
from latentebm.debiaser import Debiaser
from latentebm.models.energies import EnergyNet
from latentebm.models.storage.tilt_folder import load_tilt
from latentebm.models.tilts import LatentTilt
from latentebm.sampling import ISIR, MALA, SNIS, Langevin, Rejection
from latentebm.tilting.bake import BakeRecipe, bake
from latentebm.tilting.baked_tilt import BakedTilt, spline_flow
from tests.conftest import bars
from tests.sampling_targets import A, B, GaussianTilt, assert_mean, gen

PLANE = WrappedModel(nn.Identity(), 2)
SHORT = BakeRecipe(draws=10_000, steps=200, batch_size=256)


class Quadratic(nn.Module):
    """E = ½z'Az − b'z + c, whose tilt is that of `GaussianTilt`."""

    def forward(self, z):
        return GaussianTilt().energy(z)


TILT = LatentTilt(PLANE, Quadratic())


@pytest.fixture(scope="module")
def baked():
    flow = spline_flow(2, transforms=2, hidden=(32, 32), generator=gen())
    return bake(TILT, flow=flow, sampler=SNIS(pool=50_000), recipe=SHORT, generator=gen())


def check_exact(draws):
    assert_mean(draws.latent, GaussianTilt.mean)
    centred = draws.latent - GaussianTilt.mean
    assert_mean((centred.unsqueeze(2) * centred.unsqueeze(1)).flatten(1), GaussianTilt.covariance.flatten())
    if "log_z" in draws.diagnostics:
        assert abs(draws.diagnostics["log_z"] - GaussianTilt.log_z) < 4.9 * draws.diagnostics["log_z_se"]


def test_draws_are_exact_and_efficient(baked):
    draws = baked.draw(TILT, 5_000, generator=gen(1))
    check_exact(draws)
    found = draws.diagnostics
    assert (found["sampler"], found["reliable"], found["pool"]) == ("baked", True, 20_000)
    assert found["ess"] > 0.9 > GaussianTilt.rho
    assert baked.log_.steps <= SHORT.steps
    torch.testing.assert_close(draws.log_weight, -TILT.energy(draws.latent), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(draws.x, draws.latent)
    weighed = baked.weigh(20_000, generator=gen(2))
    assert weighed["ess"] == pytest.approx(found["ess"], abs=0.02)
    assert baked.sample(1_000, generator=gen()).latent.mean(0) == pytest.approx(GaussianTilt.mean, abs=0.15)


def test_it_is_a_target_of_every_sampler(baked):
    samplers = [
        SNIS(pool=20_000),
        Rejection(pilot=5_000, chunk=5_000),
        ISIR(proposals=7, n_steps=6),
        Langevin(kernel=MALA(0.4), n_steps=60),
    ]
    for sampler in samplers:
        check_exact(sampler.draw(baked, 2_000, generator=gen(3)))


class Unweighted(BakedTilt):
    """A flow believed to be the tilt itself."""

    def energy(self, u):
        return torch.zeros(len(u))


class Halved(BakedTilt):
    """Weights of √w."""

    def energy(self, u):
        return super().energy(u) / 2


def test_weights_correct_any_flow_and_faulty_ones_do_not():
    torch.manual_seed(0)
    flow = MAF(2, transforms=2, hidden_features=(16,))  # never fitted
    check_exact(BakedTilt(TILT, flow).draw(TILT, 5_000, generator=gen(1)))
    for faulty in (Unweighted(TILT, flow), Halved(TILT, flow)):
        with pytest.raises(AssertionError):
            check_exact(faulty.draw(faulty.tilt, 5_000, generator=gen(1)))


def test_its_points_have_the_density_it_says():
    """The mean of p0/q over its points is 1, and its log-density integrates to 1."""
    torch.manual_seed(0)
    target = BakedTilt(TILT, MAF(2, transforms=2, hidden_features=(16,)))
    u = target.sample_base(50_000, generator=gen())
    with torch.no_grad():
        assert_mean((TILT.log_base(u) - target.log_base(u)).exp(), 1.0)
        grid = torch.cartesian_prod(*[torch.linspace(-7, 7, 281)] * 2)
        assert target.log_base(grid).exp().sum() * (14 / 280) ** 2 == pytest.approx(1, abs=0.01)


def test_another_tilt_is_drawn_through_the_same_flow(baked):
    """λ = ½: precision I + A/2."""
    draws = baked.draw(TILT * 0.5, 5_000, generator=gen(4))
    assert_mean(draws.latent, torch.linalg.solve(torch.eye(2) + A / 2, B / 2))


def test_ones_own_flow_and_files(baked, tmp_path):
    own = MAF(2, transforms=2, hidden_features=(16,))
    other = bake(TILT, flow=own, sampler=SNIS(pool=20_000), recipe=BakeRecipe(draws=2_000, steps=60), generator=gen())
    assert other.flow is own
    check_exact(other.draw(TILT, 2_000, generator=gen()))
    for i, (made, flow) in enumerate([(baked, None), (other, MAF(2, transforms=2, hidden_features=(16,)))]):
        again = BakedTilt.load(made.save_flow(tmp_path / str(i)), TILT, flow=flow)
        assert torch.equal(*(b.sample(9, generator=gen()).latent for b in (made, again)))
    with pytest.raises(ValueError, match="flow: expected the form of your own flow, got None"):
        BakedTilt.load(tmp_path / "1", TILT)


def test_it_is_saved_as_other_tilts_are(tmp_path):
    tilt = LatentTilt(PLANE, EnergyNet(2))
    made = BakedTilt(tilt, spline_flow(2, transforms=2, hidden=(8,), generator=gen()))
    again = load_tilt(made.save(tmp_path / "tilt"), PLANE)
    assert torch.equal(*(b.sample_base(50, generator=gen()) for b in (made, again)))
    u = made.sample_base(50, generator=gen())
    assert torch.equal(again.energy(u), made.energy(u))
    with pytest.raises(ValueError, match="flow: expected a spline_flow, which can be built again"):
        BakedTilt(tilt, MAF(2)).save(tmp_path / "own")


def test_a_debiaser_draws_by_it():
    images = bars(300, 0).images
    small = {"width": 16, "epochs": 2, "folds": 2, "tilt_steps": 20, "latent_dim": 3}
    model = Debiaser(**small).fit(images, images[:60])
    recipe = BakeRecipe(draws=500, steps=20, batch_size=64)
    model.sampler = bake(model.tilt(), sampler=SNIS(pool=5_000), recipe=recipe, generator=gen())
    draws = model.sample(50)
    assert (draws.diagnostics["sampler"], draws.x.shape) == ("baked", (50, 1, 8, 8))


class Collapsed(LatentTilt):
    def energy(self, u):
        return 60 * u.square().sum(1) - 900 * u[:, 0]


BAD = {
    "dimension": (
        lambda: bake(TILT, flow=MAF(3), generator=gen()),
        r"flow: expected .*pass for example spline_flow\(2",
    ),
    "loaded dimension": (lambda: BakedTilt(TILT, MAF(5)), "flow: expected"),
    "no flow": (lambda: bake(TILT, flow=nn.Linear(2, 2), generator=gen()), "flow: expected"),
    "collapsed": (lambda: bake(Collapsed(PLANE, Quadratic()), generator=gen()), "sampler: expected reliable draws"),
    "opposite": (lambda: ~BakedTilt(TILT, MAF(2)), "tilt: expected an energy with a known upper bound"),
    "steps": (lambda: BakeRecipe(steps=0), "steps: expected"),
    "few draws": (lambda: bake(TILT, recipe=BakeRecipe(draws=2), generator=gen()), "draws: expected"),
    "n": (lambda: BakedTilt(TILT, MAF(2)).draw(TILT, 0, generator=gen()), "n: expected"),
    "generator": (lambda: bake(TILT, generator=None), "generator: expected"),
    "hidden": (lambda: spline_flow(2, hidden=(0,), generator=gen()), "hidden: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_without_zuko_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ImportError, match=r"zuko: expected for bake, not found; pip install \"latentebm\[flows\]\""):
        bake(TILT, generator=gen())
