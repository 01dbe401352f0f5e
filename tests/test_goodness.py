"""Tests of fit: uniform p-values under the null, power under planted faults, and the closed form of the kernel."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression
from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.tilts import LatentTilt
from latentebm.rng import stream
from latentebm.sampling import SNIS, ULA, Draws, Langevin, agreement, classifier_test, stein_test
from latentebm.workflow.draws_check import stein_row
from tests.sampling_targets import GaussianTilt, MixtureTilt, gen

REPLICATES = 200


def normal(x):
    return x.square().sum(1) / 2


def stein_p(i, scale=1.0, d=2, n=40):
    return stein_test(normal, scale * torch.randn(n, d, generator=gen(i)), generator=gen(i + 9_999), bootstraps=99)[1]


def classifier_p(i, scale=1.0, d=2, **options):
    x, y = torch.randn(30, d, generator=gen(i)), scale * torch.randn(20, d, generator=gen(i + 9_999))
    return classifier_test(x, y, generator=gen(i), **{"permutations": 99, **options}).p_value


def check_uniform(p_values):
    """Kolmogorov and Smirnov at α = 1e-6; a p-value of k/100 stands for a uniform number below it."""
    spread = torch.tensor(p_values).double() - 0.01 * torch.rand(len(p_values), generator=gen(), dtype=torch.float64)
    assert kstest(spread.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("test", [stein_p, classifier_p])
@pytest.mark.parametrize("d", [1, 6])
def test_p_values_are_uniform_under_the_null(test, d):
    check_uniform([test(i, d=d) for i in range(REPLICATES)])


@pytest.mark.parametrize("test", [stein_p, classifier_p])
def test_and_not_under_a_fault(test):
    with pytest.raises(AssertionError):
        check_uniform([test(i, scale=2.0) for i in range(REPLICATES)])


def test_p_values_of_another_classifier_are_uniform():
    options = {"classifier": LogisticRegression(), "permutations": 9, "folds": 2}
    p_values = [classifier_p(i, **options) for i in range(20)]
    assert kstest(p_values, "uniform").pvalue > 1e-6
    x, y = torch.randn(60, 1, generator=gen()), 1 + torch.randn(60, 1, generator=gen(1))
    found = classifier_test(x, y, generator=gen(), **options)
    assert found.p_value == pytest.approx(0.1)
    assert found.auc == pytest.approx(0.5 * math.erfc(-0.5), abs=0.12)  # Φ(1/√2) of the best classifier


def test_the_discrepancy_is_the_mean_of_the_stein_kernel():
    """By automatic differentiation of the kernel, pair by pair."""
    tilt, x = GaussianTilt(), torch.randn(12, 2, generator=gen()).double()
    off = ~torch.eye(12, dtype=torch.bool)
    scale = torch.cdist(x, x).square()[off].median()

    def kernel(a, b):
        return (1 + (a - b).square().sum() / scale) ** -0.5

    def score(a):
        return -torch.func.grad(lambda a: tilt.energy(a[None].float())[0].double() + a.square().sum() / 2)(a)

    total = 0.0
    for i in range(12):
        for j in range(12):
            if i == j:
                continue
            a, b = x[i], x[j]
            trace = torch.func.jacrev(torch.func.grad(kernel, 0), 1)(a, b).trace()
            total += kernel(a, b) * (score(a) @ score(b)) + trace
            total += score(a) @ torch.func.grad(kernel, 1)(a, b) + score(b) @ torch.func.grad(kernel, 0)(a, b)
    found = stein_test(tilt, x.float(), generator=gen(), bootstraps=9).discrepancy
    assert found == pytest.approx(float(total) / 132, rel=1e-4)


def test_draws_of_a_tilt_pass_and_wrong_ones_fail():
    tilt = GaussianTilt()
    right = SNIS(pool=200_000).draw(tilt, 500, generator=gen()).latent
    hot = Langevin(kernel=ULA(0.05, temperature=1.5), n_steps=200).draw(tilt, 500, generator=gen()).latent
    base = tilt.sample_base(500, generator=gen(3))
    assert stein_test(tilt, right, generator=gen()).p_value > 0.001
    for wrong in (hot, base):
        assert stein_test(tilt, wrong, generator=gen()).p_value < 0.01
        assert agreement(right, wrong, generator=gen()).classifier_p_value < 0.01


def test_the_classifier_sees_the_modes_that_the_gradient_does_not():
    tilt = MixtureTilt(centre=4.0)
    one = 4.0 + 0.5 * torch.randn(300, 1, generator=gen())
    sign = torch.where(torch.rand(300, 1, generator=gen(1)) < 0.7, 1.0, -1.0)
    both = sign * (4.0 + 0.5 * torch.randn(300, 1, generator=gen(2)))
    assert stein_test(tilt, one, generator=gen()).p_value > 0.001
    found = agreement(one, both, generator=gen(), permutations=199)
    assert (found.p_value, found.classifier_p_value) == pytest.approx((0.005, 0.005))


def test_few_draws_leave_the_classifier_out_of_agreement():
    found = agreement(torch.randn(5, 2), torch.randn(5, 2), generator=gen(), permutations=19)
    assert math.isnan(found.auc)
    assert math.isnan(found.classifier_p_value)


X = torch.randn(20, 1, generator=gen())
HARD = LatentTilt(WrappedModel(nn.Identity(), 1), lambda z: (z[:, 0] > 0).float())
BAD = {
    "few": (lambda: stein_test(normal, X[:9], generator=gen()), "draws: expected at least 10, got 9"),
    "stuck": (lambda: stein_test(normal, torch.ones(20, 1), generator=gen()), "draws: expected mostly distinct ones"),
    "NaN": (lambda: stein_test(normal, X * math.nan, generator=gen()), "draws: expected finite values"),
    "piecewise constant": (
        lambda: stein_test(HARD, X, generator=gen()),
        "energy: expected a differentiable one, whose gradient the test reads, got a piecewise constant one",
    ),
    "infinite energy": (
        lambda: stein_test(lambda x: normal(x).where(x[:, 0] > 0, -math.inf), X, generator=gen()),
        "potential: expected finite values",
    ),
    "generator": (lambda: stein_test(normal, X, generator=None), "generator: expected a torch.Generator"),
    "bootstraps": (lambda: stein_test(normal, X, generator=gen(), bootstraps=0), "bootstraps: expected"),
    "few samples": (lambda: classifier_test(X, X[:9], generator=gen()), "samples: expected at least 10, got 9"),
    "shapes": (lambda: classifier_test(X, X.expand(-1, 2), generator=gen()), "samples: expected"),
    "folds": (lambda: classifier_test(X, X, generator=gen(), folds=1), "folds: expected"),
    "infinite": (lambda: classifier_test(X, X / 0, generator=gen()), "samples: expected finite values"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


class _Base:
    """N(0, I) in two dimensions tilted by a step, as a run's tilt."""

    dim = 2

    def log_base(self, u):
        return -u.square().sum(1) / 2

    def energy(self, u):
        return (u[:, 0] > 0).float()

    def potential(self, u):
        return self.energy(u) - self.log_base(u)


def test_a_run_says_why_its_draws_are_not_tested():
    u = torch.randn(40, 2, generator=stream(0))
    cases = {"fewer": u[:5], "repeated": u[:1].expand(40, 2), "raw pixels": u[:, :1], "piecewise": u}
    for words, latent in cases.items():
        found = stein_row(_Base(), Draws(latent, latent, latent[:, 0]), stream(1))
        assert (words in found.get("untested", ""), "p_value" in found) == (True, False)
