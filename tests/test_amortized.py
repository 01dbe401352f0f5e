"""Learned samplers: entropies against linear-Gaussian generators, and the laws that generator and energy reach."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from latentebm.models.energy import EnergyNet
from latentebm.models.point_generator import PointGenerator
from latentebm.models.tilt import LatentTilt
from latentebm.objectives.amortized import (
    entropy_surrogate,
    mutual_information,
    posterior_bound,
    sampler_score,
    scale_entropy,
)
from latentebm.sampling.amortized import AmortizedSampler
from latentebm.training import amortized
from latentebm.training.amortized import fit_amortized, fit_sampler

NOISE = 0.5
ENTROPIES = ("variational", "mutual-information", "scales")


def test_scale_entropy_is_that_of_gaussians():
    scales = torch.tensor([0.3, 1.0, 4.0])
    torch.testing.assert_close(scale_entropy(scales), Normal(0.0, scales).entropy().sum())


@pytest.mark.parametrize(("sign", "right"), [(1, True), (-1, False)])
def test_the_entropy_gradient_of_a_linear_generator(sign, right, rng):
    """H = ½ log det(AA' + σ²I) + const, so that dH/dA = (AA' + σ²I)⁻¹ A."""
    a = torch.tensor([[1.0, 0.4], [-0.3, 0.6]], requires_grad=True)
    z, noise = torch.randn(4000, 2, generator=rng), torch.randn(4000, 2, generator=rng)
    x = z @ a.T + NOISE * noise
    fixed = a.detach()
    score = sampler_score(lambda z: z @ fixed.T, x, z, noise=NOISE, spread=torch.ones(2), k=200, generator=rng)
    entropy_surrogate(x, sign * score).backward()
    exact = torch.linalg.solve(fixed @ fixed.T + NOISE**2 * torch.eye(2), fixed)
    assert bool(((a.grad - exact).abs() < 0.1).all()) == right


def test_the_proposal_fits_where_its_bound_is_flat(rng):
    """On g(z) = az the bound is −½ s²(1 + a²/σ²) + log s: flat at s² = 1/(1 + a²/σ²)."""
    best = 1 / math.sqrt(1 + 2.0**2 / NOISE**2)
    slopes = []
    for factor in (1.0, 1.5):
        spread = torch.full((1,), factor * best, requires_grad=True)
        z = torch.randn(20_000, 1, generator=rng)
        x = 2 * z + NOISE * torch.randn(20_000, 1, generator=rng)
        posterior_bound(lambda z: 2 * z, x, z, noise=NOISE, spread=spread, generator=rng).backward()
        slopes.append(float(spread.grad) * best)
    # The mean of ξ² over 20,000 draws of sd √2 each, and of the cross terms with x and z.
    assert abs(slopes[0]) < 4.9 * 2 / math.sqrt(20_000)
    assert slopes[1] == pytest.approx(1 / 1.5 - 1.5, abs=0.1)


def test_the_information_bound_is_tight_at_the_true_ratio_only(rng):
    z, noise = torch.randn(40_000, generator=rng), torch.randn(40_000, generator=rng)
    x = z + NOISE * noise
    exact = 0.5 * math.log(1 + 1 / NOISE**2)

    def bound(spread):
        def critic(x, z):
            return Normal(z, spread).log_prob(x) - Normal(0.0, math.sqrt(1 + NOISE**2)).log_prob(x)

        return mutual_information(critic(x, z), critic(x, z.roll(1))).item()

    assert bound(NOISE) == pytest.approx(exact, abs=0.04)
    assert bound(2 * NOISE) < exact - 0.1


def gaussian_generator(entropy, dim=1):
    """An affine generator: every Gaussian is in its reach."""
    torch.manual_seed(0)
    scales = entropy == "scales"
    return PointGenerator(4 if scales else dim, dim, hidden=(), noise=0.0 if scales else 0.2, batch_norm=scales)


def moments(source):
    x = source.sample(4000, generator=torch.Generator().manual_seed(1)).detach()
    return x.mean(0), x.std(0)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_generator_finds_a_gaussian_potential(entropy, rng):
    source = gaussian_generator(entropy)
    fit_sampler(
        lambda x: 2 * (x - 1).square().sum(1), source, entropy=entropy, steps=300, batch=128, lr=0.03, generator=rng
    )
    mean, sd = moments(source)
    assert mean.item() == pytest.approx(1, abs=0.1)
    assert sd.item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("fault", ["missing", "flipped"])
def test_without_its_entropy_a_generator_collapses(fault, rng, monkeypatch):
    factor = {"missing": 0.0, "flipped": -0.1}[fault]
    monkeypatch.setattr(amortized, "entropy_surrogate", lambda x, score: factor * entropy_surrogate(x, score))
    source = gaussian_generator("variational")
    fit_sampler(lambda x: 2 * (x - 1).square().sum(1), source, steps=300, batch=128, lr=0.03, generator=rng)
    assert moments(source)[1].item() < 0.3  # its noise alone is 0.2


class Parabola(nn.Module):
    """A Gaussian's energy."""

    def __init__(self, dim):
        super().__init__()
        self.mean, self.log_precision = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return 0.5 * (self.log_precision.exp() * (x - self.mean).square()).sum(1)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_energy_and_generator_learn_the_data_together(entropy, rng):
    mean, sd = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.0])
    data = mean + sd * torch.randn(4000, 2, generator=rng)
    energy, source = Parabola(2), gaussian_generator(entropy, 2)
    fit_amortized(energy, source, data, entropy=entropy, gradient_penalty=0.0, steps=1000, batch=128,
                  lr=0.03, generator=rng)  # fmt: skip
    torch.testing.assert_close(energy.mean.detach(), mean, atol=0.15, rtol=0)
    torch.testing.assert_close((-0.5 * energy.log_precision.detach()).exp(), sd, atol=0.15, rtol=0)
    for found, wanted in zip(moments(source), (mean, sd), strict=True):
        torch.testing.assert_close(found, wanted, atol=0.15, rtol=0)


def test_the_generators_loss_leaves_the_energy_alone_and_moves_every_part_of_the_generator(rng):
    energy, source = Parabola(2), PointGenerator(2, 2, hidden=(4,))
    learner = amortized._Learner(source, "mutual-information", "jensen-shannon", 1.0, 2)
    learner.loss(amortized._constant(energy), lambda x: x.square().sum(1), 16, rng).backward()
    assert all(p.grad is None for p in energy.parameters())
    assert all(bool(p.grad.any()) for p in source.parameters())


class Flat(nn.Module):
    """A stand-in for a trained generator of data, which shows its code."""

    latent_dim = 2

    def decode(self, z):
        return z


def test_a_learned_sampler_keeps_the_samplers_contract(rng):
    tilt, source = LatentTilt(Flat(), EnergyNet(2)), PointGenerator(3, 2)
    draws = AmortizedSampler(source).draw(tilt, 7, generator=rng)
    assert draws.latent.shape == draws.x.shape == (7, 2)
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent).detach())
    again = AmortizedSampler(source).draw(tilt, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws.latent, again.latent)
    with pytest.raises(ValueError, match=r"generator: expected points of shape \(7, 2\), got \(7, 3\)"):
        AmortizedSampler(PointGenerator(3, 3)).draw(tilt, 7, generator=rng)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": PointGenerator(2, 3)}, r"source: expected a generator of points \(N, 2\), got \(N, 3\)"),
        ({"source": PointGenerator(2, 2, noise=0.0)}, "source: expected noise above 0"),
        ({"entropy": "scales"}, "source: expected batch normalisation"),
        ({"entropy": "guess"}, "entropy: expected"),
        ({"bound": "guess"}, "bound: expected"),
        ({"entropy_weight": -1.0}, "entropy_weight: expected"),
        ({"gradient_penalty": -1.0}, "gradient_penalty: expected"),
        ({"ratio": 0}, "ratio: expected"),
        ({"steps": 0}, "steps: expected"),
        ({"data": torch.zeros(5)}, "data: expected shape"),
        ({"data": torch.full((5, 2), torch.inf)}, "data: expected finite"),
    ],
)
def test_bad_input_is_named(change, message, rng):
    settings = {"source": PointGenerator(2, 2), "data": torch.zeros(5, 2), "steps": 1, **change}
    with pytest.raises(ValueError, match=message):
        fit_amortized(Parabola(2), settings.pop("source"), settings.pop("data"), **settings, generator=rng)
