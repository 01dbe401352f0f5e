"""SNIS and resampling against the closed forms of a Gaussian and of a two-mode tilt."""

import pytest
import torch
from sampling_targets import GaussianTilt, MixtureTilt, assert_mean, gen

from latentebm.sampling import SNIS


@pytest.mark.parametrize("resampling", ["multinomial", "systematic", "residual", "without_replacement"])
def test_snis_gaussian(resampling):
    tilt = GaussianTilt()
    draws = SNIS(pool=300_000, chunk=7_000, resampling=resampling).draw(tilt, 5_000, generator=gen(1))
    d = draws.diagnostics
    assert abs(d["log_z"] - tilt.log_z) < 4.9 * d["log_z_se"]
    assert abs(d["ess"] - tilt.rho) < 0.01
    assert d["reliable"]
    assert_mean(draws.latent, tilt.mean)
    assert_mean((draws.latent[:, 0] - tilt.mean[0]) * (draws.latent[:, 1] - tilt.mean[1]), tilt.covariance[0, 1])
    assert torch.equal(draws.x, 2 * draws.latent)
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent))
    assert_mean(draws.latent[:500], tilt.mean)  # a prefix is a fair sample


def test_snis_mixture_mode_mass():
    tilt = MixtureTilt()
    d = SNIS(pool=400_000).draw(tilt, 10_000, generator=gen(2))
    assert_mean((d.latent[:, 0] > 0).double(), tilt.positive)
    assert abs(d.diagnostics["ess"] - tilt.rho) < 0.004
    assert abs(d.diagnostics["log_z"]) < 4.9 * d.diagnostics["log_z_se"]
