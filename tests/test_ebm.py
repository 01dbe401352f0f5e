"""Maximum likelihood by MCMC: exact gradients where the law is known, Gaussians recovered, divergence caught."""

import math

import pytest
import torch
from torch import nn

from latentebm.ebm.check_energy import check_depends
from latentebm.ebm.jem import JEMRecipe, fit_jem
from latentebm.ebm.learned_sampler import fit_amortized, fit_sampler
from latentebm.ebm.maximum_likelihood import MCMCRecipe, Negatives, fit_ebm
from latentebm.ebm.score import ScoreRecipe, fit_score
from latentebm.models.networks import mlp
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives.contrast import contrastive_loss
from latentebm.sampling import (
    MALA,
    PMC,
    SGLD,
    ULA,
    ConditionalSampler,
    ImproperSGLD,
    JointSampler,
    RandomWalk,
    run_chains,
    tune_step,
)
from latentebm.training.fit import DivergedError, fit
from latentebm.training.keep import Guard
from latentebm.training.optimisation import Optimisation
from tests.sampling_targets import GaussianTilt, assert_mean, gen


class Gaussian(nn.Module):
    """E(x) = ½ a x² − b x, the law N(b/a, 1/a); free, so that any divergence shows."""

    def __init__(self, a=1.0, b=0.0):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x):
        return (0.5 * self.a * x.square() - self.b * x).sum(1)

    def draws(self, n, g):
        return self.b.item() / self.a.item() + torch.randn(n, 1, generator=g) / math.sqrt(self.a.item())


def gradients(scale, kernel, repeats=200):
    """Loss gradients in b with chains started exactly, data N(1, 1); the likelihood's own is E_data[−x] + b/a."""
    model, g = Gaussian(2.0, 1.0), gen(3)
    recipe = MCMCRecipe(kernel=kernel, n_steps=5, start="base")
    negatives = Negatives(recipe, model.draws, g)
    found = []
    for _ in range(repeats):
        x = 1 + torch.randn(256, 1, generator=g)
        loss = contrastive_loss(scale * model(x), model(negatives(model, x, g)))
        found.append(torch.autograd.grad(loss, model.b)[0])
    return torch.stack(found)


@pytest.mark.parametrize("kernel", [MALA(0.3), RandomWalk(0.8)])
def test_gradient_is_unbiased_from_exact_chains(kernel):
    assert_mean(gradients(1.0, kernel), -1 + 0.5)
    with pytest.raises(AssertionError):
        assert_mean(gradients(1.1, kernel), -1 + 0.5)


@pytest.mark.parametrize("start", ["buffer", "base", "data"])
@pytest.mark.parametrize("kernel", [MALA(0.1), RandomWalk(1.0)])
def test_a_gaussian_is_recovered(start, kernel):
    data = 2 + 0.7 * torch.randn(2000, 1, generator=gen(1))
    model = Gaussian()
    recipe = MCMCRecipe(kernel=kernel, start=start, n_steps=8, epochs=20, lr=0.3, buffer_size=1000, batch_size=128)
    result = fit_ebm(model, data, recipe, generator=gen(2))
    mean, sd = model.b.item() / model.a.item(), model.a.item() ** -0.5
    assert abs(mean - data.mean()) < 0.08
    assert abs(sd - data.std()) < 0.08
    assert result.log == []


@pytest.mark.parametrize("kernel", [SGLD(a=0.1, gamma=0.0), ImproperSGLD(alpha=0.1, sigma=0.1**0.5), ULA(0.05)])
def test_other_kernels_with_penalties_run(kernel):
    data = torch.randn(512, 1, generator=gen(1)) + 1
    model = Gaussian()
    recipe = MCMCRecipe(kernel=kernel, epochs=40, lr=0.05, buffer_size=512, energy_penalty=0.01, gradient_penalty=0.01)
    fit_ebm(model, data, recipe, generator=gen(2))
    assert abs(model.b.item() / model.a.item() - 1) < 0.2


def lesson(epochs, **settings):
    """Mean and sd of chains over an energy 1→64→64→1 learned from N(5, 1), all chains begun uniformly on [0, 15]."""
    torch.manual_seed(0)
    a, g = nn.LeakyReLU, gen(0)
    energy = nn.Sequential(nn.Linear(1, 64), a(0.2), nn.Linear(64, 64), a(0.2), nn.Linear(64, 1), nn.Flatten(0))
    base = lambda n, g: 15 * torch.rand(n, 1, generator=g)  # noqa: E731
    recipe = MCMCRecipe(n_steps=15, epochs=epochs, batch_size=100, buffer_size=1000, **settings)
    fit_ebm(energy, 5 + torch.randn(2000, 1, generator=g), recipe, base=base, generator=g)
    x = run_chains(energy, base(5000, g), MALA(0.3), 200, generator=g).state.position
    return x.mean().item(), x.std().item()


def test_the_one_dimensional_lesson():
    mean, sd = lesson(epochs=25, kernel=MALA(0.3), lr=5e-3)
    assert abs(mean - 5) < 0.1
    assert abs(sd - 1) < 0.1
    _, flat = lesson(epochs=8, kernel=MALA(0.3), lr=5e-3, energy_penalty=0.2)
    assert flat > 1.3  # the penalty that is often printed holds the energy's walls down


def test_a_random_walk_keeps_the_law():
    target, g = GaussianTilt(), gen(4)
    root = torch.linalg.cholesky(target.covariance)
    x = target.mean + torch.randn(20_000, 2, generator=g) @ root.T
    moved = run_chains(target.potential, x, RandomWalk(1.0), 20, generator=g).state.position
    assert (moved != x).any(1).float().mean() > 0.9
    assert_mean(moved, target.mean)
    centred = moved - target.mean
    assert_mean(centred[:, :, None] * centred[:, None], target.covariance)
    wrong = run_chains(lambda x: 1.1 * target.potential(x), x, RandomWalk(1.0), 20, generator=g).state.position
    with pytest.raises(AssertionError):
        assert_mean((wrong - target.mean).square(), target.covariance.diagonal())


def test_a_random_walk_asks_for_no_gradient_and_tunes():
    x = torch.randn(500, 1, generator=gen())
    step_energy = lambda x: x.abs().floor().sum(1)  # noqa: E731
    assert run_chains(step_energy, x, RandomWalk(1.0), 5, generator=gen()).info.acceptance < 1
    kernel, _ = tune_step(step_energy, x, RandomWalk(0.01), 150, generator=gen(), target=0.4)
    assert 0.3 < run_chains(step_energy, x, kernel, 50, generator=gen()).info.acceptance < 0.5


def spoiled(at, times, guard=True):
    """Fit w → 3, the loss NaN `times` times from call number `at`."""
    net, calls = nn.Linear(1, 1, bias=False), []

    def loss(batch):
        calls.append(0)
        bad = at <= len(calls) < at + times
        return (net(torch.ones(1, 1)) - 3).square().sum() * (math.nan if bad else 1)

    watch = Guard(net, every=10, retries=3) if guard else None
    return net, lambda: fit(net, loss, range(200), Optimisation(lr=0.1), guard=watch)


def test_guard_goes_back_halves_the_rate_and_recovers():
    net, run = spoiled(at=55, times=1)
    result = run()
    assert result.log == ["step 55: a loss of nan; back to step 40, peak learning rate 0.05"]
    assert abs(net.weight.item() - 3) < 0.05


def test_without_a_guard_the_same_fault_stops_the_fit():
    _, run = spoiled(at=55, times=1, guard=False)
    with pytest.raises(DivergedError, match="step"):
        run()


def test_guard_gives_up_and_keeps_the_good_state():
    net, run = spoiled(at=55, times=1000)
    with pytest.raises(DivergedError, match=r"at step 58 after 3 rollbacks; the state of step 40 is kept"):
        run()
    assert 0 < net.weight.item() < 5


def test_a_planted_divergence_is_caught_and_mended():
    """With a learning rate far too high and chains far too slow the energy runs away; the guard brings it back."""
    data = 2 + 0.7 * torch.randn(2000, 1, generator=gen(1))
    slow = {"kernel": MALA(0.01), "n_steps": 1, "start": "base", "epochs": 30, "schedule": "constant"}
    base = lambda n, g: 6 + torch.rand(n, 1, generator=g)  # noqa: E731
    free, held = Gaussian(), Gaussian()
    fit_ebm(free, data, MCMCRecipe(**slow, lr=1.0, max_gap=1e9), base=base, generator=gen(2))
    result = fit_ebm(held, data, MCMCRecipe(**slow, lr=1.0, max_gap=30.0), base=base, generator=gen(2))
    assert result.log
    assert "back to step" in result.log[0]
    gap = lambda m: (m(base(100, gen())).mean() - m(data).mean()).abs().item()  # noqa: E731
    assert gap(held) < 30 < gap(free)


def test_guard_restores_the_buffer():
    net, buffer = nn.Linear(1, 1), torch.zeros(3)
    guard = Guard(net, every=1, extra=[buffer])
    for step in (1, 2):
        buffer += 1
        guard.passed(step)
    buffer.fill_(9.0)
    assert guard.roll_back() == 1
    assert buffer.tolist() == [1.0] * 3


class Flat(nn.Module):
    def __init__(self, through):
        super().__init__()
        self.c, self.through = nn.Parameter(torch.ones(())), through

    def forward(self, x):
        return self.c + (0 * x.sum(1) if self.through else x.new_zeros(len(x)))


class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.logits.expand(len(x), 2)


def test_a_classifier_without_score_is_named():
    x, y = torch.randn(64, 2, generator=gen()), torch.arange(64) % 2
    blind = Blind()
    sampler = ConditionalSampler(blind, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
    chains = PMC(ULA(0.1), n_steps=1, size=200)
    with pytest.raises(ValueError, match="energy: expected one that depends on x, got a zero score"):
        fit_jem(blind, x, y, sampler=sampler, chains=chains, generator=gen())
    check_depends(nn.Linear(2, 3), x)


def test_an_energy_that_starts_at_zero_is_fine():
    net = nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 1), nn.Flatten(0))
    nn.init.zeros_(net[2].weight)
    check_depends(net, torch.randn(64, 2, generator=gen()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 0}, "n_steps.*CD-k"),
        ({"buffer_size": 0}, "buffer_size"),
        ({"buffer_size": 10}, "buffer_size: expected at least the batch's 256"),
        ({"start": "noise"}, "start: expected one of buffer, base, data"),
        ({"kernel": "mala"}, "kernel"),
        ({"energy_penalty": -1}, "energy_penalty"),
        ({"restart": 2}, "restart"),
    ],
)
def test_bad_recipes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MCMCRecipe(**settings)


@pytest.mark.parametrize("data", [torch.zeros(0, 2), torch.zeros(5), torch.zeros(5, 2, dtype=torch.long)])
def test_bad_data_are_named(data):
    with pytest.raises(ValueError, match="data: expected floats of shape"):
        fit_ebm(Gaussian(), data, generator=gen())


def test_a_random_walk_has_no_gradient_to_clip():
    with pytest.raises(ValueError, match="clip: expected None"):
        RandomWalk(0.1, clip=1.0)


@pytest.mark.parametrize("through", [True, False])
def test_an_energy_that_forgets_its_argument_is_found_among_many_points(through, rng):
    data, flat = torch.randn(1000, 2, generator=rng), Flat(through)
    for fit_it in (
        lambda: fit_ebm(flat, data, generator=rng),
        lambda: fit_amortized(flat, SamplerNet(2, 2), data, generator=rng),
        lambda: fit_sampler(flat, SamplerNet(2, 2), generator=rng),
        lambda: fit_score(flat, data, ScoreRecipe(sigma=0.1), generator=rng),
    ):
        with pytest.raises(ValueError, match="energy: expected one that depends on x"):
            fit_it()


def test_a_gradient_that_is_not_finite_is_taken_back():
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    with pytest.raises(DivergedError, match="a gradient of norm inf at step 9 after 8 rollbacks; the state of step 0"):
        fit(net, lambda _: net.weight.sqrt().sum(), range(20), guard=Guard(net))
    assert net.weight.item() == 0


def test_points_and_clips_are_checked(rng):
    energy, holed = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), torch.ones(50, 2)
    holed[3, 1] = torch.nan
    for fit_it in (
        lambda x: fit_ebm(energy, x, generator=rng),
        lambda x: fit_amortized(energy, SamplerNet(2, 2), x, generator=rng),
        lambda x: fit_score(energy, x, ScoreRecipe(sigma=0.1), generator=rng),
    ):
        with pytest.raises(ValueError, match="data: expected finite values"):
            fit_it(holed)
        with pytest.raises(ValueError, match="data: expected floats of shape"):
            fit_it(torch.ones(50, 2).long())
    with pytest.raises(ValueError, match="source: expected a SamplerNet, got Linear"):
        fit_amortized(energy, nn.Linear(2, 2), torch.ones(5, 2), generator=rng)
    for fit_it in (
        lambda: fit_ebm(nn.Linear(2, 1), torch.ones(5, 2), generator=rng),
        lambda: fit_amortized(nn.Linear(2, 1), SamplerNet(2, 2), torch.ones(5, 2), generator=rng),
        lambda: fit_score(nn.Linear(2, 1), torch.ones(5, 2), ScoreRecipe(sigma=0.1), generator=rng),
    ):
        with pytest.raises(ValueError, match=r"energy: expected shape \(N,\), got \(5, 1\)"):
            fit_it()


def test_joint_chains_and_their_labels_go_back_with_the_classifier(rng):
    y = torch.arange(200) % 2
    x, net = torch.randn(200, 1, generator=rng) + 4.0 * y[:, None] - 2, mlp((1, 16, 2))
    sampler = JointSampler(net, lambda n, g: 3 * torch.randn(n, 1, generator=g), classes=2)
    chains = PMC(ULA(0.1), n_steps=3, size=60)
    fit_jem(net, x, y, JEMRecipe(epochs=4, batch_size=50), sampler=sampler, chains=chains, generator=rng)
    wild = PMC(ULA(1e6), n_steps=3, size=60, restart=0.0)
    with pytest.raises(DivergedError):
        fit_jem(net, x, y, JEMRecipe(epochs=9, batch_size=50, max_gap=5.0), sampler=sampler, chains=wild, generator=rng)
    assert float(wild.buffer.x.abs().max()) < 20
