"""Score matching against its closed forms on Gaussians, and the exact loss against its cheaper kin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from latentebm.ebm.noise import NoiseEnergy
from latentebm.ebm.score import ScoreRecipe, fit_score
from latentebm.models.networks import mlp
from latentebm.objectives.score_matching import (
    denoising_score_matching,
    exact_score_matching,
    multiscale_score_matching,
    sliced_score_matching,
)
from latentebm.sampling.mcmc.annealed import annealed_langevin
from latentebm.training.fit import DivergedError

Z_ALPHA = 4.9  # two-sided normal quantile at 1e-6
P = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)  # precision of the model
S = torch.tensor([[0.5, -0.2], [-0.2, 1.5]], dtype=torch.float64)  # covariance of the data
SIGMA = 0.4


def quadratic(x):
    return 0.5 * ((x @ P) * x).sum(-1)


def gaussian_data(n, rng):
    return torch.randn(n, 2, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(S).T


def closed_form(covariance):
    """E[|Px|²/2] − tr P for x ~ N(0, covariance)."""
    return float(0.5 * (P @ P @ covariance).trace() - P.trace())


def deviation(draw, exact, blocks=400):
    """Standard errors between the mean of a loss over fresh blocks and its exact value."""
    values = torch.stack([draw() for _ in range(blocks)])
    return abs(float(values.mean()) - exact) / float(values.std() / math.sqrt(blocks))


LOSSES = {
    "exact": lambda e, x, g: exact_score_matching(e, x),
    "rademacher": lambda e, x, g: sliced_score_matching(e, x, generator=g, projection="rademacher"),
    "gaussian": lambda e, x, g: sliced_score_matching(e, x, generator=g, projection="gaussian"),
    "rademacher, plain": lambda e, x, g: sliced_score_matching(e, x, generator=g, reduced=False),
    "gaussian, plain": lambda e, x, g: sliced_score_matching(e, x, generator=g, projection="gaussian", reduced=False),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_meet_the_gaussian_closed_form(name, rng):
    assert deviation(lambda: LOSSES[name](quadratic, gaussian_data(200, rng), rng), closed_form(S)) < Z_ALPHA


@pytest.mark.parametrize("paired", [True, False])
def test_denoising_is_score_matching_of_the_smoothed_data(paired, rng):
    exact = closed_form(S + SIGMA**2 * torch.eye(2, dtype=torch.float64)) + 2 / (2 * SIGMA**2)

    def draw(energy=quadratic):
        return denoising_score_matching(energy, gaussian_data(200, rng), SIGMA, generator=rng, paired=paired)

    assert deviation(draw, exact) < Z_ALPHA
    assert deviation(lambda: draw(lambda x: -quadratic(x)), exact) > Z_ALPHA


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("fault", [lambda x: -quadratic(x), lambda x: 2 * quadratic(x)], ids=["sign", "scale"])
def test_a_wrong_energy_is_caught(name, fault, rng):
    assert deviation(lambda: LOSSES[name](fault, gaussian_data(200, rng), rng), closed_form(S), blocks=100) > Z_ALPHA


@pytest.mark.parametrize("name", list(LOSSES)[1:])
def test_sliced_losses_agree_with_the_exact_one_on_a_network(name, rng):
    torch.manual_seed(1)
    net, x = mlp((3, 16, 1)).double(), torch.randn(64, 3, generator=rng, dtype=torch.float64)

    def energy(x):
        return 5 * net(x).squeeze(-1).square()

    exact = exact_score_matching(energy, x).item()
    assert deviation(lambda: LOSSES[name](energy, x, rng).detach(), exact) < Z_ALPHA
    assert deviation(lambda: LOSSES[name](lambda y: 0.5 * energy(y), x, rng).detach(), exact) > Z_ALPHA


def test_the_exact_loss_is_that_of_the_hessians(rng):
    x = torch.randn(5, 3, generator=rng, dtype=torch.float64)

    def energy(x):
        return (x.prod(-1) + x.pow(4).sum(-1)).sin()

    slope = torch.func.vmap(torch.func.grad(energy))(x)
    trace = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(energy)))(x).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(exact_score_matching(energy, x), (0.5 * slope.square().sum(1) - trace).mean())


@pytest.mark.parametrize("name", LOSSES)
def test_members_are_scored_apart_and_every_parameter_learns(name, rng):
    torch.manual_seed(0)
    net, x = mlp((2, 8, 1)), torch.randn(3, 40, 2, generator=rng)
    whole = LOSSES[name](lambda x: net(x).squeeze(-1), x, torch.Generator().manual_seed(1))
    assert whole.shape == (3,)
    whole.sum().backward()
    used = [p for n, p in net.named_parameters() if n != "2.bias"]  # the energy's free constant
    assert all(p.grad is not None and bool(p.grad.any()) for p in used)


def smoothed(weight, spread=1.0):
    """Exact −log density of a mixture at ∓3 under noise, and the same with a wrong weight or spread."""

    def energy(x, sigma):
        variance = spread * (0.3**2 + sigma.square())
        logs = [(-0.5 * (x[:, 0] - m).square() / variance) + math.log(w) for m, w in ((-3, weight), (3, 1 - weight))]
        return 0.5 * variance.log() - torch.logsumexp(torch.stack(logs), 0)

    return energy


def mixture_data(n, rng, weight=0.2):
    side = torch.where(torch.rand(n, 1, generator=rng) < weight, -3.0, 3.0)
    return side + 0.3 * torch.randn(n, 1, generator=rng)


@pytest.mark.parametrize("fault", [{"weight": 0.5}, {"weight": 0.2, "spread": 1.3}], ids=["weight", "spread"])
def test_the_truth_has_the_least_multiscale_loss(fault, rng):
    x = mixture_data(40_000, rng)
    sigma = 0.1 * (30 ** torch.rand(len(x), generator=rng))

    def loss(energy):
        return multiscale_score_matching(energy, x, sigma, generator=torch.Generator().manual_seed(1),
                                         scale_weight=1.0).item()  # fmt: skip

    assert loss(smoothed(0.2)) < loss(smoothed(**fault)) - 1e-3


def mass_below(energy):
    t = torch.linspace(-6, 6, 2001)[:, None]
    with torch.no_grad():
        p = torch.softmax(-energy(t), 0)
    return float(p[:1000].sum())


def test_levels_tell_the_mass_of_separate_modes_and_annealing_finds_it(rng):
    torch.manual_seed(0)
    data = mixture_data(4000, rng)
    energy = NoiseEnergy(1, low=0.1, high=4.0, hidden=(64, 64))
    recipe = ScoreRecipe(method="multiscale", steps=600, lr=5e-3, scale_weight=1.0)
    fit_score(energy, data, recipe, generator=rng)
    assert mass_below(energy) == pytest.approx(0.2, abs=0.06)
    x = annealed_langevin(energy, 4 * torch.randn(1000, 1, generator=rng), energy.levels(10), generator=rng)
    assert float((x < 0).float().mean()) == pytest.approx(0.2, abs=0.1)
    assert float(x[x > 0].mean()) == pytest.approx(3, abs=0.1)
    # The fault: the same chains at the least level alone never cross, and keep the share of the start.
    stuck = annealed_langevin(energy, 4 * torch.randn(1000, 1, generator=rng), energy.levels(2)[1:], generator=rng)
    assert float((stuck < 0).float().mean()) > 0.3


@pytest.mark.parametrize("method", ["exact", "sliced", "denoising"])
def test_a_gaussian_is_learned(method, rng):
    torch.manual_seed(0)
    data = 1 + 0.5 * torch.randn(2000, 1, generator=rng)
    net = Flat(mlp((1, 32, 1)))
    fit_score(net, data, ScoreRecipe(method=method, sigma=0.05, steps=400, lr=1e-2), generator=rng)
    t = torch.linspace(-2, 4, 600)[:, None]
    with torch.no_grad():
        p = torch.softmax(-net(t), 0)
    mean = float(p @ t[:, 0])
    assert mean == pytest.approx(1, abs=0.06)
    assert math.sqrt(float(p @ (t[:, 0] - mean).square())) == pytest.approx(0.5, abs=0.06)


class Flat(nn.Module):
    """A network's only output as an energy; with `blind`, one that never looks at its point."""

    def __init__(self, net, blind=False):
        super().__init__()
        self.net, self.blind = net, blind

    def forward(self, x):
        return self.net(torch.zeros_like(x) if self.blind else x).squeeze(-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma: expected positive"),
        ({"sigma": -1.0}, "sigma: expected positive"),
        ({"sigma": None}, "sigma: expected one noise level"),
        ({"sigma": torch.tensor([0.5, 0.1])}, "sigma: expected one noise level"),
        ({"method": "implicit"}, "method: expected"),
        ({"method": "multiscale"}, "energy: expected a NoiseEnergy"),
        ({"method": "sliced", "projection": "uniform"}, "projection: expected"),
        ({"steps": 0}, "steps: expected"),
        ({"data": torch.zeros(5)}, "data: expected shape"),
        ({"data": torch.full((5, 2), torch.nan)}, "data: expected finite"),
        *[({"method": m, "blind": True}, "energy: expected one that depends on x, got a zero score")
          for m in ("exact", "sliced", "denoising")],
    ],
)  # fmt: skip
def test_bad_input_is_named(change, message, rng):
    settings = {"data": torch.zeros(5, 2), "sigma": 0.1, "steps": 1, **change}
    energy = Flat(mlp((2, 4, 1)), blind=settings.pop("blind", False))
    with pytest.raises(ValueError, match=message):
        fit_score(energy, settings.pop("data"), ScoreRecipe(**settings), generator=rng)


class Breaking(nn.Module):
    """A parabola whose energy is NaN from its call number `at`."""

    def __init__(self, at):
        super().__init__()
        self.weight, self.calls, self.at = nn.Parameter(torch.ones(())), 0, at

    def forward(self, x):
        self.calls += 1
        return self.weight * x.square().sum(-1) * (math.nan if self.calls > self.at else 1)


def test_a_loss_that_stays_nan_names_its_step_and_keeps_the_last_good_state(rng):
    energy, seen = Breaking(159), []
    energy.weight.register_hook(lambda _: seen.append(energy.weight.item()))
    with pytest.raises(
        DivergedError, match=r"a loss of nan at step 167 after 8 rollbacks; the state of step 100 is kept"
    ):
        fit_score(energy, torch.randn(50, 1, generator=rng), ScoreRecipe(method="exact", steps=200), generator=rng)
    assert energy.weight.item() == seen[100] != seen[150]


@pytest.mark.parametrize("levels", [[0.1, 1.0], [1.0, -0.1], [1.0, 1.0], []])
def test_levels_must_fall(levels, rng):
    energy, x = NoiseEnergy(1, low=0.1, high=1.0, hidden=(4,)), torch.zeros(5, 1)
    with pytest.raises(ValueError, match="sigma: expected"):
        fit_score(energy, x, ScoreRecipe(method="multiscale", sigma=torch.tensor(levels)), generator=rng)
    with pytest.raises(ValueError, match="sigmas: expected"):
        annealed_langevin(energy, x, torch.tensor(levels), generator=rng)


def test_scaled_levels_divide_the_energy():
    energy, x = NoiseEnergy(2, low=0.1, high=1.0, conditioning="scaled"), torch.ones(1, 2)
    torch.testing.assert_close(energy(x), 10 * energy(x, torch.ones(1)))
    with pytest.raises(ValueError, match="high: expected"):
        NoiseEnergy(2, low=1.0, high=0.1)
    with pytest.raises(ValueError, match="spread: expected"):
        NoiseEnergy(2, low=0.1, high=1.0, spread=0)


def test_an_untrained_level_is_the_smoothed_gaussian():
    """With the network silent the energy is −log N(0, (s² + σ²) I), up to one constant for all points and levels."""
    energy, x = NoiseEnergy(3, low=0.1, high=2.0, spread=1.5), torch.randn(50, 3, generator=torch.Generator())
    for p in energy.net[-1].parameters():
        nn.init.zeros_(p)
    sigma = torch.linspace(0.1, 2.0, 50)
    law = torch.distributions.Normal(torch.zeros(50, 3), (1.5**2 + sigma.square()).sqrt()[:, None].expand(50, 3))
    constant = energy(x, sigma) + law.log_prob(x).sum(1)
    torch.testing.assert_close(constant, torch.full((50,), -1.5 * math.log(2 * math.pi)), atol=1e-4, rtol=0)
