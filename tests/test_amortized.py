"""Learned samplers: entropies against linear-Gaussian samplers, and the distributions that sampler and energy reach."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from latentebm.data.toy import EightGaussians
from latentebm.ebm.learned_sampler import AmortizedRecipe, Proposal, SamplerRecipe, fit_amortized, fit_sampler
from latentebm.ebm.noise import NoiseEnergy
from latentebm.ebm.sampler_loss import SamplerLoss, constant
from latentebm.evaluation.quadrature import Grid
from latentebm.models.energies import EnergyNet
from latentebm.models.networks import mlp
from latentebm.models.sampler_net import SamplerNet
from latentebm.models.tilts import LatentTilt
from latentebm.objectives.sampler_entropy import (
    entropy_surrogate,
    mutual_information,
    sampler_score,
    scale_entropy,
)
from latentebm.sampling.learned import AmortizedSampler
from latentebm.training.fit import DivergedError

NOISE = 0.5
ENTROPIES = ("variational", "mutual-information", "scales")
PRECISE = {"steps": 300, "batch": 128, "lr": 0.03}


def test_scale_entropy_is_that_of_gaussians():
    scales = torch.tensor([0.3, 1.0, 4.0])
    torch.testing.assert_close(scale_entropy(scales), Normal(0.0, scales).entropy().sum())


A = torch.tensor([[1.0, 0.4, -0.2], [-0.3, 0.6, 0.5]])
LAW = MultivariateNormal(torch.zeros(2), A @ A.T + NOISE**2 * torch.eye(2))


def linear_draws(n, rng):
    z, noise = torch.randn(n, 3, generator=rng), torch.randn(n, 2, generator=rng)
    return z, z @ A.T + NOISE * noise


def test_score_and_density_of_a_linear_sampler_are_exact(rng):
    z, x = linear_draws(50, rng)
    found = sampler_score(lambda z: z @ A.T, x, z, noise=NOISE, k=2, generator=rng)
    torch.testing.assert_close(found.score, -torch.linalg.solve(LAW.covariance_matrix, x.T).T, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.log_density, LAW.log_prob(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("sign", "noise", "right"), [(1, NOISE, True), (-1, NOISE, False), (1, 1.2 * NOISE, False)])
def test_the_entropy_gradient_of_a_linear_sampler(sign, noise, right, rng):
    """H = ½ log det(AA' + σ²I) + const, so that dH/dA = (AA' + σ²I)⁻¹ A; too much noise makes it too small."""
    a = A.clone().requires_grad_()
    z, x = linear_draws(20_000, rng)
    score = sampler_score(lambda z: z @ A.T, x, z, noise=noise, generator=rng).score
    entropy_surrogate(x + z @ (a - a.detach()).T, sign * score).backward()
    exact = torch.linalg.solve(LAW.covariance_matrix, A)
    # Products of two normal variables: standard deviations of at most 2 over √20,000.
    assert bool(((a.grad - exact).abs() < 4.9 * 2 / 20_000**0.5).all()) == right


def test_resampled_points_follow_the_potential_not_the_generator(rng):
    """Two members at N(0, 1 + .25), reweighted to N(½, .8) and N(−½, .8), whose weights are bounded."""
    source = SamplerNet(1, 1, noise=0.5, straight=1.0, members=2)
    centre = torch.tensor([0.5, -0.5])

    def potential(x):
        return (x.view(-1, 2) - centre).square().flatten() / 1.6

    drawn = Proposal(source, torch.zeros(1), torch.ones(1)).draw(potential, 20_000, rng).view(-1, 2)
    # Importance draws: 10,000 of each member at an efficiency of more than one half, redrawn.
    assert ((drawn.mean(0) - centre).abs() < 4.9 * (0.8 * 3 / 10_000) ** 0.5).all()
    torch.testing.assert_close(drawn.var(0), torch.full((2,), 0.8), atol=0.08, rtol=0)


def test_a_wide_share_finds_what_the_sampler_misses(rng):
    """A sampler at −2 of a law with equal parts at −2 and 2; without density of its own its points would stay."""
    source = SamplerNet(1, 1, noise=0.3)
    for p in source.parameters():
        nn.init.constant_(p, 0)
    source.net[-1].bias.data.fill_(-2.0)

    def potential(x):
        return (x.squeeze(1).abs() - 2).square() / (2 * 0.3**2)

    def right_share():
        return (Proposal(source, torch.zeros(1), 2 * torch.ones(1)).draw(potential, 10_000, rng) > 0).double().mean()

    # 1,000 wide draws, of which some 150 fall into the missed part.
    assert right_share().item() == pytest.approx(0.5, abs=0.15)
    source.noise = 0.0
    assert right_share() == 0


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


def gaussian_sampler(entropy, dim=1):
    """An affine sampler: every Gaussian is in its reach."""
    scales = entropy == "scales"
    return SamplerNet(4 if scales else dim, dim, hidden=(), noise=0.0 if scales else 0.2, batch_norm=scales,
                      generator=torch.Generator().manual_seed(0))  # fmt: skip


def moments(source):
    x = source.sample(4000, generator=torch.Generator().manual_seed(1)).detach()
    return x.mean(0), x.std(0)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_sampler_finds_a_gaussian_potential(entropy, rng):
    source = gaussian_sampler(entropy)
    fit_sampler(lambda x: 2 * (x - 1).square().sum(1), source, SamplerRecipe(entropy=entropy, **PRECISE), generator=rng)
    mean, sd = moments(source)
    assert mean.item() == pytest.approx(1, abs=0.1)
    assert sd.item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("entropy", ENTROPIES[:2])
def test_without_its_entropy_a_sampler_collapses(entropy, rng):
    source, recipe = gaussian_sampler("variational"), SamplerRecipe(entropy=entropy, entropy_weight=0.0, **PRECISE)
    fit_sampler(lambda x: 2 * (x - 1).square().sum(1), source, recipe, generator=rng)
    assert moments(source)[1].item() < 0.3  # its noise alone is 0.2


class Parabola(nn.Module):
    """A Gaussian's energy."""

    def __init__(self, dim):
        super().__init__()
        self.mean, self.log_precision = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return 0.5 * (self.log_precision.exp() * (x - self.mean).square()).sum(1)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_energy_and_sampler_learn_the_data_together(entropy, rng):
    mean, sd = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.0])
    data = mean + sd * torch.randn(4000, 2, generator=rng)
    energy, source = Parabola(2), gaussian_sampler(entropy, 2)
    fit_amortized(energy, source, data, AmortizedRecipe(entropy=entropy, **{**PRECISE, "steps": 600}), generator=rng)
    torch.testing.assert_close(energy.mean.detach(), mean, atol=0.15, rtol=0)
    torch.testing.assert_close((-0.5 * energy.log_precision.detach()).exp(), sd, atol=0.15, rtol=0)
    for found, wanted in zip(moments(source), (mean, sd), strict=True):
        torch.testing.assert_close(found, wanted, atol=0.15, rtol=0)


def test_the_samplers_loss_leaves_the_energy_alone_and_moves_every_part_of_the_sampler(rng):
    energy, source = Parabola(2), SamplerNet(2, 2, hidden=(4,))
    fixed = constant(energy)
    learner = SamplerLoss(source, "mutual-information", bound="jensen-shannon")
    learner(lambda x: fixed(x) + x.square().sum(1), 16, rng).backward()
    assert all(p.grad is None for p in energy.parameters())
    assert all(bool(p.grad.any()) for p in source.parameters())


class Flat(nn.Module):
    """A stand-in for a trained generator of data, which shows its code."""

    latent_dim = 2

    def decode(self, z):
        return z


def test_a_learned_sampler_keeps_the_samplers_contract(rng):
    tilt, source = LatentTilt(Flat(), EnergyNet(2)), SamplerNet(3, 2)
    draws = AmortizedSampler(source).draw(tilt, 7, generator=rng)
    assert draws.latent.shape == draws.x.shape == (7, 2)
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent).detach())
    again = AmortizedSampler(source).draw(tilt, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws.latent, again.latent)
    with pytest.raises(ValueError, match=r"source: expected points of shape \(7, 2\), got \(7, 3\)"):
        AmortizedSampler(SamplerNet(3, 3)).draw(tilt, 7, generator=rng)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": SamplerNet(2, 3)}, r"source: expected a sampler of points \(N, 2\), got \(N, 3\)"),
        ({"source": SamplerNet(2, 2, noise=0.0)}, "source: expected noise above 0"),
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
    settings = {"source": SamplerNet(2, 2), "data": torch.ones(5, 2), "steps": 1, **change}
    source, data = settings.pop("source"), settings.pop("data")
    with pytest.raises(ValueError, match=message):
        fit_amortized(Parabola(2), source, data, AmortizedRecipe(**settings), generator=rng)


class Integrable(nn.Module):
    """A perceptron over a wide parabola."""

    def __init__(self, generator):
        super().__init__()
        self.net = mlp((2, 64, 64, 1), generator=generator)

    def forward(self, x):
        return self.net(6 * x).squeeze(1) + x.square().sum(1) / 8


def learned_together(entropy, noise=0.1):
    """Excess over the entropy of eight Gaussians, by exact quadrature; the parabola alone has 2.04 nats."""
    g = torch.Generator().manual_seed(0)
    law, energy, scales = EightGaussians(), Integrable(g), entropy == "scales"
    shape = {"hidden": (64, 64), "straight": 0.0 if scales else 1.5, "batch_norm": scales}
    source = SamplerNet(2, 2, noise=noise, **shape, generator=g)
    recipe = AmortizedRecipe(entropy=entropy, steps=300, batch=128)
    fit_amortized(energy, source, law.sample(4000, generator=g), recipe, generator=g)
    test = law.sample(4000, generator=g)
    return (law.log_prob(test) - Grid(6.0, 200).log_likelihood(energy, test)).mean()


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_networks_energy_and_its_sampler_learn_eight_gaussians(entropy):
    assert learned_together(entropy) < 1.0


def test_without_the_points_weights_the_energy_goes_astray():
    """A sampler without noise has no density, and its points no weights."""
    assert learned_together("scales", noise=0.0) > 1.0


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_the_same_seed_gives_the_same_energy_and_sampler(entropy):
    def weights(seed):
        g = torch.Generator().manual_seed(seed)
        energy = NoiseEnergy(2, low=0.1, high=2.0, hidden=(8,), generator=g)
        source = SamplerNet(2, 2, hidden=(8,), batch_norm=entropy == "scales", generator=g)
        recipe = AmortizedRecipe(entropy=entropy, steps=5, batch=16)
        fit_amortized(energy, source, torch.randn(50, 2, generator=g), recipe, generator=g)
        return torch.cat([p.detach().flatten() for p in (*energy.parameters(), *source.parameters())])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


class Broken(Parabola):
    """An energy that becomes NaN."""

    def forward(self, x):
        return super().forward(x) * torch.nan


def test_a_diverging_fit_goes_back_and_says_at_which_step(rng):
    energy, source, recipe = Broken(2), SamplerNet(2, 2, hidden=(4,)), AmortizedRecipe(steps=20, batch=8)
    before = [p.detach().clone() for p in (*energy.parameters(), *source.parameters())]
    with pytest.raises(DivergedError, match="a loss of nan at step 9 after 8 rollbacks; the state of step 0"):
        fit_amortized(energy, source, torch.randn(50, 2, generator=rng), recipe, generator=rng)
    assert all(torch.equal(p, q) for p, q in zip(before, (*energy.parameters(), *source.parameters()), strict=True))


def test_a_sampler_of_the_wrong_output_shape_is_named(rng):
    source = SamplerNet(2, 2)
    source.net = nn.Linear(2, 3)
    for call in (
        lambda: fit_amortized(Parabola(2), source, torch.ones(5, 2), generator=rng),
        lambda: fit_sampler(Parabola(2), source, generator=rng),
        lambda: Proposal(source, torch.zeros(2), torch.ones(2)).draw(Parabola(2), 8, rng),
    ):
        with pytest.raises(ValueError, match=r"source: expected shape \(N, 2\), got \(\d+, 3\)"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SamplerNet(1, 2, straight=1.0), "latent_dim: expected at least dim=2"),
        (lambda: SamplerNet(2, 2, members=0), "members: expected"),
        (lambda: SamplerNet(2, 2, members=3)(torch.zeros(4, 2)), "z: expected a multiple of 3 rows, got 4"),
        (lambda: Proposal(SamplerNet(2, 2), torch.zeros(2), torch.ones(2), share=0), "share: expected"),
        (lambda: Proposal(SamplerNet(2, 2), torch.zeros(2), torch.ones(2)).draw(len, 1, None), "n: expected"),
        (lambda: fit_sampler(lambda x: x, SamplerNet(2, 2), generator=torch.Generator()), "potential"),
    ],
)
def test_bad_samplers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
