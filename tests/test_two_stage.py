"""Two-stage draws: exact whatever the surrogate, fewer decodes than one stage, and in time."""

from __future__ import annotations

import pytest
import torch

from latentebm import TwoStage
from latentebm.adapters.from_module import WrappedModel
from latentebm.models.tilts import LatentTilt

FAR = LatentTilt(WrappedModel(lambda z: z, 4), lambda z: 2 * z[:, 0] + 0.5 * z[:, 1].square())


def test_a_gaussian_tilt_in_closed_form(rng):
    draws = TwoStage(decodes=4000, pilot=800, pool=200_000).draw(FAR, 4000, generator=rng)
    assert draws.latent[:, 0].mean() == pytest.approx(-2, abs=0.1)
    assert draws.latent[:, 1].var() == pytest.approx(0.5, abs=0.06)
    assert draws.diagnostics["log_z"] == pytest.approx(2 - 0.5 * torch.log(torch.tensor(2.0)).item(), abs=0.1)
    assert draws.diagnostics["ess"] > 4 * draws.diagnostics["ess_surrogate"]
    assert draws.diagnostics["decodes"] == 4800
    assert torch.allclose(draws.log_weight, -FAR.energy(draws.latent), atol=1e-4)


@pytest.mark.parametrize("wrong", [lambda x: 0 * x[:, 0], lambda x: 0.5 * x[:, 0], lambda x: x[:, 2]])
def test_a_wrong_surrogate_is_corrected(wrong, rng, monkeypatch):
    monkeypatch.setattr("latentebm.sampling.importance.two_stage._surrogate", lambda *_: wrong)
    near = LatentTilt(FAR.model, lambda z: z[:, 0])
    draws = TwoStage(decodes=20_000, pilot=20, pool=100_000, chunk=4096).draw(near, 8000, generator=rng)
    assert draws.latent.mean(0).tolist() == pytest.approx([-1, 0, 0, 0], abs=0.08)
    assert draws.diagnostics["log_z"] == pytest.approx(0.5, abs=0.06)


def test_without_the_correction_a_wrong_surrogate_shows(rng, monkeypatch):
    monkeypatch.setattr("latentebm.sampling.importance.two_stage._surrogate", lambda *_: lambda x: x[:, 2])
    monkeypatch.setattr(TwoStage, "_corrected", lambda self, tilt, u, *_: (u, torch.zeros(len(u))))
    draws = TwoStage(decodes=5000, pilot=20, pool=50_000).draw(FAR, 2000, generator=rng)
    assert abs(draws.latent[:, 0].mean()) < 0.2


def test_walls_have_weight_zero(rng):
    tilt = LatentTilt(FAR.model, lambda z: torch.where(z[:, 0] > 0, 0.0, torch.inf))
    draws = TwoStage(decodes=4000, pilot=200, pool=20_000).draw(tilt, 2000, generator=rng)
    assert draws.latent[:, 0].min() > 0
    assert draws.latent[:, 0].mean() == pytest.approx(0.798, abs=0.06)
    with pytest.raises(ValueError, match="pilot: expected at least 20 draws of a weight above zero, got "):
        TwoStage(pilot=20).draw(tilt, 5, generator=rng)
    with pytest.raises(ValueError, match="NaN or −∞"):
        TwoStage(pilot=20).draw(LatentTilt(FAR.model, lambda z: -torch.inf * z[:, 0].abs()), 5, generator=rng)


def test_time_ends_the_second_stage(rng):
    draws = TwoStage(decodes=4000, pilot=100, pool=5000, seconds=1e-9, chunk=50).draw(FAR, 10, generator=rng)
    assert draws.diagnostics["decodes"] == 150


@pytest.mark.parametrize("field", ["decodes", "pool", "pilot", "chunk", "seconds"])
def test_bad_sizes(field):
    with pytest.raises(ValueError, match=f"{field}: expected a"):
        TwoStage(**{field: 0})
