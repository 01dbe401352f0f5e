"""Toy laws and the quadrature that judges energies on them: closed forms."""

import math

import pytest
import torch

from latentebm.data.toy import TOYS, Checkerboard, EightGaussians, Rings, TwoMoons
from latentebm.evaluation.quadrature import Grid, mmd
from latentebm.objectives.contrast import contrastive_loss
from tests.sampling_targets import assert_mean, gen

GRID = Grid(4.0, 200)


def matches(law, x):
    """Draws fall into 8 × 8 squares as the density says: no square is off by more than α = 1e-6 allows."""
    p = law.log_prob(GRID.points()).double().exp().view(200, 200) * GRID.side**2
    expected = p.view(8, 25, 8, 25).sum((1, 3)).flatten()
    rows = (x + 4).floor().long().clamp(0, 7)
    counts = torch.bincount(8 * rows[:, 0] + rows[:, 1], minlength=64)
    bound = 5.5 * (len(x) * expected * (1 - expected)).sqrt() + 5
    return bool(((counts - len(x) * expected).abs() < bound).all())


@pytest.mark.parametrize("name", TOYS)
def test_density_integrates_to_one_and_draws_follow_it(name):
    law, x = TOYS[name], TOYS[name].sample(50_000, generator=gen(1))
    assert abs(GRID.log_partition(lambda x: -law.log_prob(x))) < 2e-3
    assert matches(law, x)
    surprise = -law.log_prob(x).double()
    assert abs(surprise.mean() - GRID.entropy(law.log_prob)) < 5 * surprise.std() / len(x) ** 0.5 + 1e-6
    assert not matches(law, 1.1 * x)
    assert not matches(law, x + 0.1)


def test_entropies_in_closed_form():
    assert Grid(4.0, 400).entropy(Checkerboard().log_prob) == pytest.approx(math.log(8))
    apart = EightGaussians(radius=3.0, sd=0.1)  # no overlap: log 8 + log 2πe s²
    assert GRID.entropy(apart.log_prob) == pytest.approx(math.log(8 * 2 * math.pi * math.e * 0.01), abs=1e-5)


def test_quadrature_of_a_gaussian():
    energy = lambda x: x.square().sum(1) / 2 + 3  # noqa: E731
    grid, x = Grid(8.0, 300), torch.randn(10, 2, generator=gen())
    exact = -x.square().sum(1) / 2 - math.log(2 * math.pi)
    assert torch.allclose(grid.log_likelihood(energy, x), exact.double(), atol=1e-5)
    draws = grid.sample(energy, 20_000, generator=gen(2))
    assert_mean(draws, 0.0)
    assert_mean(draws.square(), 1.0 + grid.side**2 / 12)
    assert grid.edge_mass(energy) < 1e-10 < 0.01 < Grid(2.0, 100).edge_mass(energy)


def test_mmd_of_gaussians_in_closed_form():
    x, y = torch.randn(3000, 1, generator=gen(1)), 1 + torch.randn(3000, 1, generator=gen(2))
    # E k = s/√(s² + 2) exp(−Δ²/2(s² + 2)) at s = 1.
    assert mmd(x, y, scales=(1.0,)) == pytest.approx(2 / math.sqrt(3) * (1 - math.exp(-1 / 6)), abs=0.015)


def test_contrastive_loss_treats_members_apart():
    positive, negative = torch.randn(3, 5, generator=gen()), torch.randn(3, 7, generator=gen(1))
    loss = contrastive_loss(positive, negative, energy_penalty=0.3)
    for m in range(3):
        assert loss[m].item() == pytest.approx(
            (positive[m].mean() - negative[m].mean()).item()
            + 0.3 * ((positive[m] ** 2).mean() + (negative[m] ** 2).mean()).item(),
            abs=1e-6,
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contrastive_loss(torch.zeros(0), torch.zeros(1)), "positive: expected energies"),
        (lambda: contrastive_loss(torch.zeros(1), torch.zeros(1), energy_penalty=-1), "energy_penalty"),
        (lambda: EightGaussians(sd=0), "sd"),
        (lambda: TwoMoons(sd=0.001), "sd"),
        (lambda: Rings(radii=(1.0, -1.0)), "radii"),
        (lambda: Checkerboard(side=0), "side"),
        (lambda: Checkerboard().log_prob(torch.zeros(2, 3)), r"x: expected shape \(N, 2\)"),
        (lambda: Grid(cells=1), "cells"),
        (lambda: Grid().log_partition(lambda x: x), "energy: expected shape"),
        (lambda: Grid(1.0, 2).log_partition(lambda x: x[:, 0] / 0 * 0), "energy: expected values"),
        (lambda: mmd(torch.zeros(1, 2), torch.zeros(3, 2)), "x and y"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
