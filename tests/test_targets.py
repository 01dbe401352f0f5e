"""Targets and long tails of the main job: what is cut, and what is refused."""

from __future__ import annotations

import pytest
import torch

from latentebm.data.imbalance import biased_split, within_classes
from latentebm.settings.fields import Settings
from latentebm.settings.values import LongTail
from latentebm.workflow.problem import pose


def test_ten_classes_take_a_long_tail_of_fifty(rng):
    """The first class gives its share of images and no more; sizes fall exponentially to a fiftieth."""
    problem = pose(Settings(classes="all", proportions="long-tail:50"), rng)
    counts = problem.counts(problem.biased)
    assert counts[0] == pytest.approx(0.6 * 5923, abs=2)
    assert counts == pytest.approx([counts[0] * 50 ** (-k / 9) for k in range(10)], abs=2)
    reference = problem.counts(problem.reference)
    assert len(set(reference)) == 1
    assert reference[0] == 5923 - counts[0]


def test_without_the_cut_the_tail_asks_for_too_much(rng):
    labels, shares = torch.arange(10).repeat(100), LongTail(50).of("0123456789")
    with pytest.raises(ValueError, match="at most 100 images of class 0"):
        biased_split(labels, range(10), shares, generator=rng)
    fraction = within_classes(labels, range(10), shares, 0.6)
    biased, reference = biased_split(labels, range(10), shares, biased_fraction=fraction, generator=rng)
    assert int((labels[biased] == 0).sum()) in (59, 60)
    assert not set(biased.tolist()) & set(reference.tolist())


def test_targets_reach_the_reference(rng):
    uneven = pose(Settings(target="0:.5,1:.5", reference_per_class=10), rng)
    assert uneven.counts(uneven.reference) == [25, 25, 0, 0, 0]
    assert uneven.target == (0.5, 0.5, 0, 0, 0)
    assert pose(Settings(target="uniform", reference_per_class=10), rng).target == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proportions": "0,.3,.3,.3,.1"}, "target: expected classes that the biased set has: .* got none of 0"),
        ({"target": "0:.5,1:.6"}, "target: expected shares that sum to 1"),
        ({"target": "0:.5,9:.5"}, "target: expected each class once"),
        ({"target": ""}, "target: expected 5 shares, one per class, got 0"),
        ({"proportions": "long-tail:.5"}, "proportions: expected a number"),
    ],
)
def test_targets_that_cannot_be(change, message, rng):
    with pytest.raises(ValueError, match=message):
        pose(Settings(**change), rng)


def test_an_unwanted_class_may_be_absent(rng):
    problem = pose(Settings(proportions="0,.3,.3,.3,.1", target="1:.5,2:.5", reference_per_class=10), rng)
    assert problem.counts(problem.biased)[0] == 0
