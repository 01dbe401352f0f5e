"""Balance and quality against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from latentebm.evaluation.fidelity import copied_share, frechet_distance, neighbourhoods
from latentebm.evaluation.metrics import judge
from latentebm.evaluation.shares import (
    bootstrap_intervals,
    class_shares,
    confusion_rates,
    corrected_shares,
    kl_to_target,
    l2_to_target,
    total_variation,
)

CONFUSION = torch.tensor([[0.9, 0.08, 0.02], [0.15, 0.8, 0.05], [0.0, 0.3, 0.7]], dtype=torch.double)


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


def test_kl_and_l2_by_hand():
    assert kl_to_target([0.25, 0.75], [0.5, 0.5], 10**8) == pytest.approx(0.5 * np.log(4 / 3), abs=1e-6)
    # 10 draws, none of class 1: (10 + .5) / 11.5 and .5 / 11.5.
    exact = 0.5 * np.log(0.5 * 11.5 / 10.5) + 0.5 * np.log(0.5 * 11.5 / 0.5)
    assert kl_to_target([1.0, 0.0], [0.5, 0.5], 10) == pytest.approx(exact, rel=1e-5)
    assert kl_to_target([1.0, 0.0], [1.0, 0.0], 10**8) == pytest.approx(0, abs=1e-6)
    assert l2_to_target([0.2, 0.4], [0.5, 0.5]) == pytest.approx(np.sqrt(0.09 + 0.01 + 0.16))
    for distance in (l2_to_target, lambda p, t: kl_to_target(p, t, 5)):
        with pytest.raises(ValueError, match="shares: expected 2 values"):
            distance([1.0], [0.5, 0.5])


def test_confusions_are_counted_and_unknown_classes_trusted():
    read, true = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    expected = torch.tensor([[1, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]], dtype=torch.double)
    assert torch.allclose(confusion_rates(read, true, 3), expected)
    with pytest.raises(ValueError, match="one per label"):
        confusion_rates(read, true[:2], 3)


@pytest.mark.parametrize("truth", [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [1 / 3] * 3])
def test_correction_recovers_known_shares(truth):
    observed = torch.tensor(truth, dtype=torch.double) @ CONFUSION
    assert corrected_shares(observed.tolist(), CONFUSION) == pytest.approx(truth, abs=1e-6)
    # The planted fault, rates of the wrong direction, does not.
    wrong = corrected_shares(observed.tolist(), CONFUSION.T / CONFUSION.T.sum(1, keepdim=True))
    assert total_variation(wrong, truth) > 0.02


def test_correction_stays_on_the_simplex():
    s = corrected_shares([0.0, 1.0, 0.0], CONFUSION)  # no shares read like this
    assert sum(s) == pytest.approx(1)
    assert min(s) >= 0
    with pytest.raises(ValueError, match=r"confusion: expected shape \(2, 2\)"):
        corrected_shares([0.5, 0.5], CONFUSION)


def test_what_a_classifier_cannot_tell_apart_stays_as_observed():
    blind = torch.full((3, 3), 1 / 3)
    assert corrected_shares([0.2, 0.3, 0.5], blind) == pytest.approx([0.2, 0.3, 0.5], abs=1e-6)
    # Classes 1 and 2 are read alike; class 0 is still corrected, and their sum with it.
    half = torch.tensor([[0.8, 0.1, 0.1], [0.0, 0.52, 0.48], [0.0, 0.48, 0.52]])
    s = corrected_shares([0.4, 0.32, 0.28], half)
    assert s[0] == pytest.approx(0.5, abs=1e-6)
    assert s[1] - s[2] == pytest.approx(0.04, abs=1e-6)


def test_bootstrap_interval_covers_the_truth():
    """95 % intervals of a known TV: 200 of them miss fewer than 1e-6 would allow (binomial, 28 of 200)."""
    rng, truth, n = np.random.default_rng(0), [0.5, 0.3, 0.2], 2000
    target, missed = np.array([0.2, 0.3, 0.5]), 0
    for seed in range(200):
        shares, seeded = rng.multinomial(n, truth) / n, torch.Generator().manual_seed(seed)
        ((low, high),) = bootstrap_intervals(
            shares, n, lambda p: [0.5 * np.abs(p - target).sum()], generator=seeded, resamples=300
        )
        missed += not low <= 0.3 <= high
    assert missed < 28


def test_frechet_of_gaussians_meets_the_closed_form(rng):
    n, scale = 50_000, torch.tensor([1.0, 2.0, 0.5])
    x, y = torch.randn(n, 3, generator=rng), torch.randn(n, 3, generator=rng) * scale + 1
    exact = 3 + float(((1 - scale) ** 2).sum())
    assert frechet_distance(x, y) == pytest.approx(exact, abs=0.06)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_copies_are_told_from_fresh_draws(rng):
    seen, unseen, fresh = (torch.randn(n, 3, generator=rng) for n in (50, 5_000, 2_000))
    half = torch.cat([fresh[:1_000], seen.repeat(20, 1) + 0.01 * torch.randn(1_000, 3, generator=rng)])
    assert copied_share(fresh, seen, unseen, generator=rng) == pytest.approx(0.5, abs=0.08)
    assert copied_share(half, seen, unseen, generator=rng) == pytest.approx(0.75, abs=0.05)
    assert copied_share(unseen[:50], seen, unseen, generator=rng) < 0.5
    with pytest.raises(ValueError, match=r"unseen: expected at least 50 rows, .*got 49"):
        copied_share(fresh, seen, unseen[:49], generator=rng)


def test_neighbourhoods_of_equal_and_of_distant_sets(rng):
    real, same = torch.randn(2000, 4, generator=rng), torch.randn(2000, 4, generator=rng)
    found = neighbourhoods(same, real)
    assert found.density == pytest.approx(1, abs=0.1)  # its expectation for equal distributions
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # the limit for equal distributions and sizes, k = 5
    assert found.precision == pytest.approx(found.recall, abs=0.05)
    itself = neighbourhoods(real, real)
    assert (itself.precision, itself.recall, itself.coverage) == (1, 1, 1)
    assert neighbourhoods(same + 100, real) == dataclasses.replace(itself, precision=0, recall=0, density=0, coverage=0)


def test_precision_and_recall_tell_missing_modes_from_wrong_ones(rng):
    real = torch.cat([torch.randn(500, 2, generator=rng), torch.randn(500, 2, generator=rng) + 50])
    one, extra = torch.randn(1000, 2, generator=rng), torch.randn(1000, 2, generator=rng) - 50
    dropped = neighbourhoods(one, real)
    assert dropped.precision > 0.9
    assert dropped.recall == pytest.approx(0.5, abs=0.03)
    invented = neighbourhoods(torch.cat([real, extra]), real)
    assert invented.precision == pytest.approx(0.5, abs=0.03)
    assert invented.recall == 1


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("distinct", [1, 10, 300])
def test_identical_features_are_ideal(rng, offset, distinct):
    """Distances of one routine: rounding neither empties a ball nor puts the Fréchet distance below zero."""
    x = (torch.randn(distinct, 64, generator=rng) + offset).repeat(300 // distinct, 1)
    assert dataclasses.astuple(neighbourhoods(x, x)) == pytest.approx((1, 1, 1, 1))
    assert 0 <= frechet_distance(x, x) < 1e-3


def test_neighbourhoods_need_neighbours():
    for sizes, name in (((9, 5), "real"), ((5, 9), "features")):
        with pytest.raises(ValueError, match=f"{name}: expected more than k=5 rows"):
            neighbourhoods(*(torch.zeros(n, 2) for n in sizes))


class _Reads(torch.nn.Module):
    """A classifier that reads the class off the first pixel."""

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
    assert (verdict.confidence, verdict.coverage, verdict.precision, verdict.absent) == (1.0, 1.0, 1.0, 0)
    assert verdict.shares_corrected == pytest.approx(verdict.shares)  # no confusions known
    assert verdict.by_class[0]["frechet"] == pytest.approx(0, abs=1e-4)
    for name in ("tv_corrected", "kl", "l2"):
        low, high = getattr(verdict, f"{name}_interval")
        assert low < getattr(verdict, name) < high
    assert np.allclose(verdict.shares_interval, verdict.shares_corrected_interval)
    for share, (low, high) in zip(verdict.shares, verdict.shares_interval, strict=True):
        # Of 4,000 draws, the normal interval.
        half = 1.96 * (share * (1 - share) / 4000) ** 0.5
        assert (share - low, high - share) == pytest.approx((half, half), rel=0.2)


def test_judge_takes_out_confusions_and_says_what_is_absent(rng):
    """A classifier that reads a quarter of class 0 as class 1; no image of class 2."""
    x = torch.rand(4000, 1, 3, 3, generator=rng)
    x[:, :, 0, 0] = torch.arange(4000).remainder(4).eq(0)[:, None] * 0.1  # read: 3/4 class 0, 1/4 class 1
    rates = torch.eye(10)
    rates[0, :2] = torch.tensor([0.75, 0.25])
    verdict = judge(x + 1e-3, x, _Reads(), [0, 1, 2], [0.5, 0.3, 0.2], confusion=rates, generator=rng)
    assert verdict.shares == pytest.approx([0.75, 0.25, 0.0])
    assert verdict.shares_corrected == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert verdict.tv_corrected == pytest.approx(0.5)
    assert (verdict.absent, verdict.by_class[2]) == (1, None)
    assert np.isfinite(verdict.kl)
