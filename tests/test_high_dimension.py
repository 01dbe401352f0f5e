"""Kernels that keep the base distribution: exact, whatever the dimension, and what they refuse."""

import math

import pytest
import torch
from torch.distributions import Normal

from latentebm.sampling import (
    MALA,
    PCN,
    PCNL,
    PMC,
    EllipticalSlice,
    Langevin,
    UnconditionalSampler,
    ess_bulk,
    run_chains,
    start_chains,
    tune_step,
)
from tests.sampling_targets import GaussianTilt, MixtureTilt, assert_mean, gen

N = 60_000


class PriorTested(PCN):
    """The base distribution's term added to the test, which the proposal has paid already."""

    def log_ratio(self, old, new):
        return super().log_ratio(old, new) + 0.5 * (old[0].square() - new[0].square()).sum(1)


class Doubled(PCNL):
    """A test with δ for δ/2."""

    def log_ratio(self, old, new):
        return PCNL(2 * self.delta).log_ratio(old, new)


class Unshrunk(EllipticalSlice):
    """A bracket that stays as wide as it was."""

    def shrink(self, low, high, angle):
        return low, high


class Forgetful(EllipticalSlice):
    """A bracket that shrinks towards the angles that missed the level."""

    def shrink(self, low, high, angle):
        return torch.where(angle < 0, low, angle), torch.where(angle < 0, angle, high)


def check_exact(kernel, steps=4):
    """Exact draws pushed through a kernel keep means, covariances and marginals (DKW, α = 1e-6)."""
    tilt = GaussianTilt()
    x = tilt.mean + torch.randn(N, 2, generator=gen(1)) @ torch.linalg.cholesky(tilt.covariance).T
    run = run_chains(tilt, x, kernel, steps, generator=gen(2))
    y, centred = run.state.position, run.state.position - tilt.mean
    assert_mean(y, tilt.mean)
    assert_mean(centred[:, :1] * centred, tilt.covariance[0])
    assert_mean(centred[:, 1].square(), tilt.covariance[1, 1])
    for j in range(2):
        cdf = Normal(tilt.mean[j], tilt.covariance[j, j].sqrt()).cdf(y[:, j].sort().values)
        distance = (cdf - torch.arange(1, N + 1) / N).abs().max() + 1 / N
        assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * N))
    assert bool((y != x).any(1).float().mean() > 0.4)  # it does move


@pytest.mark.parametrize("kernel", [PCN(0.5), PCN(1.0), PCNL(0.6), PCNL(2.0), EllipticalSlice()], ids=repr)
def test_exact_draws_stay_exact(kernel):
    check_exact(kernel)


@pytest.mark.parametrize("fault", [PriorTested(0.5), Doubled(0.6)], ids=repr)
def test_planted_faults_are_seen(fault):
    with pytest.raises(AssertionError):
        check_exact(fault)


class Narrow(GaussianTilt):
    """Tilted to N(0, 1e-4 I): few angles of an ellipse lie above the level."""

    def energy(self, u):
        return 0.5e4 * u.square().sum(1)


def check_never_rejects(kernel):
    x = 0.01 * torch.randn(500, 2, generator=gen(3))
    run = run_chains(Narrow(), x, kernel, 20, generator=gen(4))
    assert (run.info.reverted, run.info.acceptance) == (0, 1.0)
    assert bool((run.state.position != x).any(1).all())


def test_a_slice_never_rejects():
    check_never_rejects(EllipticalSlice())
    for fault in (Unshrunk(), Forgetful()):
        with pytest.raises(AssertionError):
            check_never_rejects(fault)


def check_balance(kernel):
    """The ratio is that of π(y) q(x|y) and π(x) q(y|x), to rounding."""
    tilt = MixtureTilt()
    x, y = (torch.randn(400, 1, generator=gen(k), dtype=torch.float64) for k in (5, 6))
    seen = kernel.sees(tilt, x)
    zero = torch.zeros_like(x)

    def point(u):
        if isinstance(kernel, PCNL):
            return (u, *seen.value_and_grad(u))
        return u, tilt.energy(u), zero

    scale = kernel.scales(0)[1]

    def log_pair(a, b):
        step = Normal(kernel.propose(point(a), zero), scale).log_prob(b).sum(1)
        return step + tilt.log_base(a) - tilt.energy(a)

    ratio = kernel.log_ratio(point(x), point(y))
    assert (ratio - (log_pair(y, x) - log_pair(x, y))).abs().max() < 1e-9


def test_detailed_balance():
    for kernel in (PCN(0.3), PCNL(0.2), PCNL(1.3)):
        check_balance(kernel)
    for fault in (PriorTested(0.3), Doubled(0.2)):
        with pytest.raises(AssertionError):
            check_balance(fault)


class Feature(GaussianTilt):
    """N(0, I) of any dimension, tilted by one coordinate: u₀ ~ N(1.6, .2)."""

    def __init__(self, dim):
        self.dim = dim

    def energy(self, u):
        return 2 * (u[:, 0] - 2).square()


def pace(kernel, dim, steps=300, chains=48):
    """Acceptance, and effective draws of the feature per step, of chains that start at the tilt."""
    x = torch.randn(chains, dim, generator=gen(7))
    x[:, 0] = 1.6 + 0.2**0.5 * x[:, 0]
    run = run_chains(Feature(dim), x, kernel, steps, generator=gen(8), trace=chains)
    return run.info.acceptance, ess_bulk(run.trace[:, :, :1]).item() / (steps * chains)


@pytest.mark.parametrize("kernel", [PCN(0.5), PCNL(0.5), EllipticalSlice()], ids=repr)
def test_acceptance_does_not_fall_with_dimension(kernel):
    few, many = pace(kernel, 16), pace(kernel, 1_024)
    assert many[0] == pytest.approx(few[0], rel=0.2)
    assert many[1] == pytest.approx(few[1], rel=0.2)


def test_mala_falls_with_dimension():
    assert pace(MALA(0.2), 1_024)[0] < 0.5 * pace(MALA(0.2), 16)[0]


@pytest.mark.parametrize("kernel", [PCN(0.4), PCNL(0.2)], ids=repr)
def test_steps_are_tuned(kernel):
    tilt, x = GaussianTilt(), torch.randn(1_000, 2, generator=gen(9))
    found, state = tune_step(tilt, x, kernel, 150, generator=gen(10), target=0.7)
    assert run_chains(tilt, state, found, 30, generator=gen(11)).info.acceptance == pytest.approx(0.7, abs=0.04)
    wide, _ = tune_step(Feature(2), x, type(kernel)(1e-3), 5, generator=gen())
    assert wide.scales(0)[kernel.gradient is False] > 1e-3


def test_samplers_take_them_and_states_pass_between_kernels():
    tilt = GaussianTilt()
    for kernel in (PCN(0.5), PCNL(0.5), EllipticalSlice()):
        draws = Langevin(kernel=kernel, n_steps=60).draw(tilt, 4_000, generator=gen(12))
        assert_mean(draws.latent, tilt.mean)
        assert PMC(kernel, n_steps=3, size=50).draw(tilt, 9, generator=gen()).diagnostics["steps"] == 3
        alone = run_chains(tilt, torch.randn(50, 2, generator=gen()), kernel, 5, generator=gen()).state
        torch.testing.assert_close(alone.energy, tilt.energy(alone.position))
        after = run_chains(tilt, alone, MALA(0.1), 5, generator=gen()).state
        torch.testing.assert_close(after.energy, tilt.potential(after.position))
        again = run_chains(tilt, after, kernel, 1, generator=gen()).state
        torch.testing.assert_close(again.energy, tilt.energy(again.position))
        assert (after.step, again.step, again.alone) == (10, 11, True)


class Steps(GaussianTilt):
    """Piecewise constant: P(u₀ > 0) = e / (1 + e)."""

    def energy(self, u):
        return -(u[:, 0] > 0).to(u)


def test_pcn_draws_piecewise_constant_energies():
    for kernel in (PCN(0.7), EllipticalSlice()):
        draws = Langevin(kernel=kernel, n_steps=40).draw(Steps(), 4_000, generator=gen(13))
        assert_mean((draws.latent[:, 0] > 0).double(), math.e / (1 + math.e))


class Wide(GaussianTilt):
    def log_base(self, u):
        return super().log_base(u / 2) - 2 * math.log(2)


class Sunk(GaussianTilt):
    def energy(self, u):
        return torch.where(u[:, 0] > 1, -torch.inf, 0.0)


def test_chains_that_never_move_are_unreliable():
    draws = Langevin(kernel=MALA(1e6), warm_up=0, n_steps=20).draw(GaussianTilt(), 50, generator=gen())
    assert draws.diagnostics["reliable"] is False
    assert "hardly move" in draws.diagnostics["why"]
    assert "reliable" not in Langevin(kernel=PCN(0.5), n_steps=5).draw(GaussianTilt(), 50, generator=gen()).diagnostics


X = torch.full((4, 2), -0.5)


@pytest.mark.parametrize("kernel", [PCN(0.5), PCNL(0.5), EllipticalSlice()], ids=repr)
def test_bad_targets(kernel):
    name = type(kernel).__name__
    for draw in (Langevin(kernel=kernel), PMC(kernel, size=9)):
        with pytest.raises(ValueError, match=f"log_base: expected a standard normal one for {name}, got another"):
            draw.draw(Wide(), 5, generator=gen())
    with pytest.raises(ValueError, match=f"potential: expected a target with energy and log_base for {name}, got func"):
        run_chains(lambda x: x.sum(1), X, kernel, 1, generator=gen())
    classes = UnconditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
    with pytest.raises(ValueError, match="pass a tilt, or use MALA or RandomWalk"):
        classes.sample(4, kernel, 2, generator=gen())
    with pytest.raises(FloatingPointError, match="expected finite energies, got -inf at chain"):
        run_chains(Sunk(), X.repeat(100, 1), kernel, 60, generator=gen())
    for bad in ({"clip": 1.0}, {"preconditioner": torch.ones(2)}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected None for {name}"):
            type(kernel)(*([0.5] if kernel.stepped else []), **bad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PCN(0), r"beta: expected a number in \(0, 1\]"),
        (lambda: PCN(1.1), r"beta: expected a number in \(0, 1\]"),
        (lambda: PCNL(math.nan), r"delta: expected a number in \(0, 2\]"),
        (lambda: Langevin(kernel=PCNL(0.5)).draw(Steps(), 500, generator=gen()), "use PCN, without gradients"),
        (lambda: tune_step(GaussianTilt(), X, EllipticalSlice(), 3, generator=gen()), "with a step to adapt"),
        (lambda: run_chains(GaussianTilt(), [[0.0]], PCN(0.5), 1, generator=gen()), "position: expected a tensor"),
        (
            lambda: run_chains(
                Steps(), start_chains(Steps(), torch.randn(99, 2, generator=gen())), PCNL(0.5), 1, generator=gen()
            ),
            "expected a differentiable one for PCNL, got a piecewise constant one",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
