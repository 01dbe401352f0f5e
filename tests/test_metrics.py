"""Balance and quality against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentebm.evaluation.metrics import (
    class_shares,
    density_coverage,
    frechet_distance,
    judge,
    total_variation,
    tv_interval,
)


def test_total_variation_counts_what_lies_outside():
    assert total_variation([0.2, 0.3], [0.5, 0.5]) == pytest.approx(0.5)
    assert total_variation([0.5, 0.5], [0.5, 0.5]) == 0
    assert total_variation([0.0, 0.0], [0.5, 0.5]) == 1
    with pytest.raises(ValueError, match="shares: expected 2 values"):
        total_variation([1.0], [0.5, 0.5])


def test_shares_count_absent_classes():
    assert class_shares(torch.tensor([0, 0, 3]), [0, 1]) == [pytest.approx(2 / 3), 0.0]
    with pytest.raises(ValueError, match="at least one"):
        class_shares(torch.tensor([]), [0])


def test_bootstrap_interval_covers_the_truth():
    """95 % intervals of a known TV: 200 of them miss fewer than 1e-6 would allow (binomial, 28 of 200)."""
    rng, truth, n = np.random.default_rng(0), [0.5, 0.3, 0.2], 2000
    target, missed = [0.2, 0.3, 0.5], 0
    for seed in range(200):
        shares = (rng.multinomial(n, truth) / n).tolist()
        low, high = tv_interval(shares, target, n, generator=torch.Generator().manual_seed(seed), resamples=300)
        missed += not low <= 0.3 <= high
    assert missed < 28


def test_frechet_of_gaussians_meets_the_closed_form(rng):
    n, scale = 50_000, torch.tensor([1.0, 2.0, 0.5])
    x, y = torch.randn(n, 3, generator=rng), torch.randn(n, 3, generator=rng) * scale + 1
    exact = 3 + float(((1 - scale) ** 2).sum())
    assert frechet_distance(x, y) == pytest.approx(exact, abs=0.06)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_density_and_coverage_of_equal_and_of_distant_sets(rng):
    real, same = torch.randn(2000, 4, generator=rng), torch.randn(2000, 4, generator=rng)
    density, coverage = density_coverage(same, real)
    assert density == pytest.approx(1, abs=0.1)  # its expectation for equal laws
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # the limit for equal laws, equal sizes, k = 5
    assert density_coverage(same + 100, real) == (0.0, 0.0)
    half = real[real[:, 0] > 0]
    assert density_coverage(half, real)[1] < 0.75


def test_density_needs_neighbours():
    with pytest.raises(ValueError, match="more than k=5 rows"):
        density_coverage(torch.zeros(9, 2), torch.zeros(5, 2))


class _Reads(torch.nn.Module):
    """A judge that reads the class off the first pixel."""

    def embed(self, x):
        return x.flatten(1)

    def probabilities(self, features):
        return torch.nn.functional.one_hot((features[:, 0] * 9.999).long(), 10).double()


def test_judge_puts_the_pieces_together(rng):
    x = torch.rand(4000, 1, 3, 3, generator=rng)
    verdict = judge(x, x, _Reads(), [0, 1, 2], [0.2, 0.4, 0.4], generator=rng)
    assert verdict.other == pytest.approx(0.7, abs=0.04)
    assert verdict.tv == pytest.approx(total_variation(verdict.shares, [0.2, 0.4, 0.4]))
    assert verdict.tv_interval[0] < verdict.tv < verdict.tv_interval[1]
    assert (verdict.confidence, verdict.coverage) == (1.0, 1.0)
