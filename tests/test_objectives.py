"""Objectives against closed forms and against their own pointwise optimum."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from latentebm.objectives.contrast import gradient_penalty
from latentebm.objectives.tilt_losses import (
    calibrated,
    gain,
    jensen_loss,
    likelihood_loss,
    log_partition,
)

A = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
B = torch.tensor([0.8, -0.4], dtype=torch.float64)
C, LOG_Z, RHO = 0.7, -0.981156, 0.632767
MEAN = torch.tensor([0.453608, -0.357388], dtype=torch.float64)
Z_ALPHA = 4.9  # two-sided normal quantile at 1e-6


def gaussian_energy(z):
    return 0.5 * ((z @ A) * z).sum(-1) - z @ B + C


def log_z_deviation(energy, k=200_000):
    """Standard errors between the estimate and the closed form."""
    z = torch.randn(k, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return abs(float(log_partition(energy(z))) - LOG_Z) / math.sqrt((1 / RHO - 1) / k)


def test_log_partition_meets_the_closed_form():
    assert log_z_deviation(gaussian_energy) < Z_ALPHA


def test_a_flipped_sign_is_caught():
    assert log_z_deviation(lambda z: -gaussian_energy(z) + 2 * C) > Z_ALPHA


def test_gain_is_the_divergence_at_the_optimum():
    """G(E*) = KL(q || p0) where q is the tilted law itself."""
    base = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    tilted = MultivariateNormal(MEAN, torch.linalg.inv(torch.eye(2, dtype=torch.float64) + A))
    torch.manual_seed(0)
    q, p = tilted.sample((200_000,)), base.sample((200_000,))
    exact = torch.distributions.kl_divergence(tilted, base).item()
    spread = gaussian_energy(q).std().item() / math.sqrt(len(q)) + math.sqrt((1 / RHO - 1) / len(p))
    assert abs(gain(gaussian_energy(q), gaussian_energy(p)).item() - exact) < Z_ALPHA * spread


TENTHS = torch.tensor([5, 3, 2]), torch.tensor([2, 3, 5])  # q and p of three atoms
LOG_RATIO = (TENTHS[0] / TENTHS[1]).double().log()


def discrete_optimum(loss, steps=3000):
    """Minimise a loss over energies of atoms, repeated so that the sample means are exact expectations."""
    e = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([e], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(*(e.repeat_interleave(n) for n in TENTHS)).backward()
        optimizer.step()
    return e.detach()


@pytest.mark.parametrize("penalty", [0.1, 0.25, 1.0])
def test_jensen_optimum_is_the_tanh_and_calibration_inverts_it(penalty):
    e = discrete_optimum(lambda q, p: jensen_loss(q, p, energy_penalty=penalty))
    torch.testing.assert_close(e, -torch.tanh(LOG_RATIO / 2) / (2 * penalty), atol=1e-4, rtol=0)
    torch.testing.assert_close(calibrated(e, energy_penalty=penalty), -LOG_RATIO, atol=1e-3, rtol=0)
    # λ = 1/4 is calibrated to first order, λ = 0.1 over-tilts 2.5 times.
    assert torch.tensordot(e, LOG_RATIO, 1) / -LOG_RATIO.square().sum() == pytest.approx(0.25 / penalty, rel=0.1)


def test_likelihood_optimum_is_the_log_ratio():
    e = discrete_optimum(likelihood_loss)
    torch.testing.assert_close(e - e.mean(), -LOG_RATIO + LOG_RATIO.mean(), atol=1e-4, rtol=0)


def test_jensen_bounds_the_gain_from_above():
    """The trap of the field: without its penalty J(E) >= G(E), for any energies."""
    torch.manual_seed(0)
    for _ in range(100):
        on_q, on_p = 3 * torch.randn(50).double(), 3 * torch.randn(70).double()
        penalty = 1e-9
        assert -jensen_loss(on_q, on_p, energy_penalty=penalty) >= gain(on_q, on_p) - 1e-6


def test_members_are_scored_apart():
    on_q, on_p = torch.randn(3, 20), torch.randn(3, 30)
    whole = likelihood_loss(on_q, on_p)
    torch.testing.assert_close(whole, torch.stack([likelihood_loss(a, b) for a, b in zip(on_q, on_p, strict=True)]))


def test_gradient_penalty_of_a_linear_energy():
    z = torch.randn(7, 2, requires_grad=True)
    energy = z @ torch.tensor([3.0, 4.0])
    assert gradient_penalty(energy, z).item() == pytest.approx(25)
    z = z.detach().requires_grad_()
    assert gradient_penalty(z @ torch.tensor([3.0, 4.0]), z, center=1.0).item() == pytest.approx(16)


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.nan])
def test_a_penalty_without_a_minimum_is_refused(penalty):
    with pytest.raises(ValueError, match="energy_penalty: expected"):
        jensen_loss(torch.zeros(1), torch.zeros(1), energy_penalty=penalty)
