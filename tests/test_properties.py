"""What holds for weights, resampling and masks whatever the numbers, on examples that Hypothesis looks for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentebm.missing.mechanisms import MAR, MCAR, SelfMasking, make_missing
from latentebm.sampling.importance.resampling import resample
from latentebm.sampling.importance.weights import WeightSums, ess, normalised
from tests.sampling_targets import gen

quick = settings(max_examples=60, deadline=None, derandomize=True)
log_weights = st.lists(st.one_of(st.floats(-50, 50), st.just(-np.inf)), min_size=1, max_size=40).filter(
    lambda w: max(w) > -np.inf
)
several = st.integers(1, 200)


def tensor(w):
    return torch.tensor(w, dtype=torch.float64)


@quick
@given(log_weights, st.floats(-500, 500))
def test_weights_do_not_change_where_all_energies_move_alike(w, shift):
    assert torch.allclose(normalised(tensor(w)), normalised(tensor(w) + shift), atol=1e-9)
    assert 1 / len(w) - 1e-9 <= float(ess(tensor(w))) <= 1 + 1e-9


@quick
@given(log_weights, st.integers(0, 40))
def test_sums_of_parts_are_the_sums_of_the_whole(w, cut):
    whole, parts = WeightSums(len(w)), WeightSums(len(w))
    whole.add(tensor(w))
    for part in (tensor(w)[:cut], tensor(w)[cut:]):
        if len(part):
            parts.add(part)
    assert parts.ess == pytest.approx(whole.ess, rel=1e-9) == pytest.approx(float(ess(tensor(w))), rel=1e-9)
    assert parts.log_z == pytest.approx(whole.log_z, abs=1e-9)


@quick
@given(log_weights, several, st.integers(0, 2**31), st.sampled_from(["multinomial", "systematic", "residual"]))
def test_resampling_keeps_to_the_weights(w, n, seed, scheme):
    weight = normalised(tensor(w))
    counts = torch.bincount(resample(tensor(w), n, resampling=scheme, generator=gen(seed)), minlength=len(w))
    assert int(counts.sum()) == n
    assert int(counts[weight == 0].sum()) == 0
    if scheme == "systematic":  # each point's number of copies is its share rounded down or up
        assert float((counts - n * weight).abs().max()) < 1 + 1e-6
    if scheme == "residual":
        assert bool((counts >= (n * weight - 1e-6).floor()).all())


@quick
@given(log_weights, st.integers(0, 2**31))
def test_draws_without_replacement_are_distinct(w, seed):
    most = int((normalised(tensor(w)) > 0).sum())
    index = resample(tensor(w), most, resampling="without_replacement", generator=gen(seed))
    assert len(set(index.tolist())) == most


@quick
@given(
    st.sampled_from([MCAR([1, 2]), MAR([0]), SelfMasking(columns=[1, 2])]), st.floats(0.05, 0.9), st.integers(0, 2**31)
)
def test_masks_touch_what_they_should_and_keep_the_rate(mechanism, rate, seed):
    x = np.random.default_rng(seed).normal(size=(600, 3))
    holed, mask = make_missing(x, mechanism, rate=rate, random_state=seed)
    assert bool(mask[:, 0].all())
    assert np.array_equal(np.isnan(holed), ~mask.astype(bool))
    assert np.array_equal(holed[mask.astype(bool)], x[mask.astype(bool)])
    lost = 1 - mask[:, 1:].mean()
    assert abs(lost - rate) < 6 * np.sqrt(rate * (1 - rate) / 600)
