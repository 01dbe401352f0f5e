"""Where small-reference tilts start: the tilt of all biased codes, and raked clusters, against closed forms."""

from __future__ import annotations

import pytest
import torch

from latentebm.models.energy import EnergyNet
from latentebm.training.mixture import _raked, fit_aggregate, fit_mixture
from latentebm.training.positives import Codes


def test_raking_undoes_what_rereading_confuses():
    """Three hard clusters of shares .5/.3/.2, read with known confusions: ratios are target over share."""
    share, wanted = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    confusion = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])
    own = torch.eye(3).repeat_interleave(torch.tensor([5, 3, 2]), 0)
    flat = torch.full((10,), 0.1)
    ratio = _raked(own, own @ confusion, flat, wanted @ confusion)
    assert (ratio * share).tolist() == pytest.approx(wanted.tolist(), abs=2e-3)
    # The planted fault, rereading left out, misses by far.
    blind = _raked(own, own, flat, wanted @ confusion)
    assert float((blind * share - wanted).abs().max()) > 0.03


def test_raking_respects_the_weights_it_starts_from():
    own, weight = torch.eye(2), torch.tensor([0.9, 0.1])
    assert _raked(own, own, weight, torch.tensor([0.5, 0.5])).tolist() == pytest.approx([0.5 / 0.9, 5.0], rel=1e-4)


def test_the_aggregate_tilt_is_the_log_ratio(rng):
    """Codes from N(.5, .8²): E = −log N(z; .5, .8²) / N(z; 0, 1), known up to a constant."""
    energy = fit_aggregate(torch.randn(20_000, 1, generator=rng) * 0.8 + 0.5, generator=rng)
    z = torch.linspace(-1, 2, 31).unsqueeze(1)
    exact = 0.5 * ((z - 0.5) / 0.8).square() - 0.5 * z.square()
    gap = energy(z) - exact.flatten()
    assert float((gap - gap.mean()).abs().max()) < 0.25


def test_reference_shares_are_met_for_every_member(rng):
    """Two separate clusters at .9/.1, a balanced reference: the tilted prior holds half in each."""
    biased = torch.cat([torch.randn(1800, 1, generator=rng) - 3, torch.randn(200, 1, generator=rng) + 3]) * 0.4
    mean = torch.tensor([[-1.2], [1.2]]).repeat(300, 1)
    codes = Codes.split(mean, torch.full_like(mean, 0.2), 3, rng)
    start = fit_aggregate(biased, generator=rng)
    mixture = fit_mixture(biased, codes, start, lambda z: z, clusters=2, members=3, generator=rng)
    z = torch.randn(20_000, 1, generator=rng)
    weight = (-start(z) - mixture.members(z)).softmax(1)
    assert weight[:, z[:, 0] > 0].sum(1).tolist() == pytest.approx([0.5] * 3, abs=0.05)
    unraked = (-start(z)).softmax(0)
    assert float(unraked[z[:, 0] > 0].sum()) < 0.2


def test_members_start_alike_and_bounded(rng):
    one = EnergyNet(2, generator=rng)
    with torch.no_grad():
        one.weights[-1].fill_(0.1)
    z = torch.randn(5, 2, generator=rng)
    members = EnergyNet(2, members=3, generator=rng).start_from(one).members(z)
    assert torch.allclose(members, one(z).expand(3, 5), atol=1e-6)
