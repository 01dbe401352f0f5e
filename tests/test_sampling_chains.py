"""Kernels and chains against the closed forms of the Gaussian, and what they do with bad input."""

import math

import pytest
import torch
from sampling_targets import GaussianTilt, assert_mean, gen

from latentebm.sampling import MALA, ULA, Langevin, run_chains


def gaussian(k):
    """Potential of N(0, 1/k) in one dimension."""
    return lambda x: 0.5 * k * x.square().sum(1)


def variance_error(kernel, k=1.0, chains=200_000, steps=60, seed=0):
    """Standard errors between the variance of chains started at the kernel's own stationary law, and that law's."""
    d, s = kernel.scales(0)
    expected = s**2 / (1 - (1 - d * k) ** 2)
    x = math.sqrt(expected) * torch.randn(chains, 1, generator=gen(seed))
    x = run_chains(gaussian(k), x, kernel, steps, generator=gen(seed + 1)).state.position
    return (x.square().mean().item() / expected - 1) / math.sqrt(2 / chains), expected


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("k", [1.0, 4.0])
def test_ula_variance(k, temperature):
    kernel = ULA(0.2, temperature=temperature)
    z, expected = variance_error(kernel, k)
    assert expected == pytest.approx(temperature / k / (1 - 0.2 * k / 2))
    assert abs(z) < 4.9


def test_langevin_default_reaches_the_gaussian_tilt():
    tilt = GaussianTilt()
    draws = Langevin().draw(tilt, 10_000, generator=gen(3))
    assert_mean(draws.latent, tilt.mean)
    assert_mean((draws.latent - tilt.mean).square(), tilt.covariance.diag())
    d = draws.diagnostics
    assert abs(d["acceptance"] - 0.574) < 0.1
    assert d["rhat"] < 1.05
    assert d["reverted"] == 0
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent))


def test_mala_acceptance_closed_form():
    eta = 0.5
    x = torch.randn(200_000, 1, generator=gen(4))
    run = run_chains(gaussian(1.0), x, MALA(eta), 5, generator=gen(5))
    expected = 1 - 2 / math.pi * math.atan((eta / 2) ** 1.5)
    assert abs(run.info.acceptance - expected) < 4.9 * 0.5 / math.sqrt(200_000)
    assert_mean(run.state.position.square(), torch.ones(1))
