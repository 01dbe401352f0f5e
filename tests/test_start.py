"""Where small-reference tilts start: biased images weighted as the reference says, against closed forms."""

from __future__ import annotations

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch.distributions import Normal

from latentebm.models.energies import EnergyNet
from latentebm.tilting.clusters import reweight
from latentebm.tilting.clusters.reweight import cluster_weights, principal_scores
from latentebm.tilting.clusters.start import fit_start
from latentebm.tilting.fit_tilt import TiltRecipe
from latentebm.tilting.sides import Codes
from latentebm.training.fit_mixture import fit_mixture

QUICK = TiltRecipe(steps=200, base_batch=256)


def test_raking_meets_the_targets_of_soft_clusters(rng):
    """Weighted images fill soft clusters as asked; target over share is right for hard ones only."""
    own = torch.rand(400, 3, generator=rng).double() + torch.tensor([2.0, 0.0, 0.0])
    own = own / own.sum(1, keepdim=True)
    asked = own.mean(0) + torch.tensor([-0.02, 0.01, 0.01])

    def filled(ratio):
        weight = own @ ratio
        return (weight @ own / weight.sum()).tolist()

    assert filled(reweight.raked(own, asked)) == pytest.approx(asked.tolist(), abs=1e-4)
    assert filled(asked / own.mean(0)) != pytest.approx(asked.tolist(), abs=5e-3)
    hard = torch.eye(2).double().repeat_interleave(torch.tensor([90, 10]), 0)
    assert reweight.raked(hard, torch.full((2,), 0.5).double()).tolist() == pytest.approx([0.5 / 0.9, 5.0], rel=1e-6)


def two_groups(rng):
    """Biased features in groups of shares .9 and .1, and 200 reference features half in each."""
    biased = torch.cat([torch.randn(1800, 2, generator=rng) - 4, torch.randn(200, 2, generator=rng) + 4])
    reference = torch.randn(200, 2, generator=rng) + torch.tensor([[-4.0], [4.0]]).repeat(100, 1)
    return biased, reference, torch.arange(200) // 2 % 3


@pytest.mark.parametrize(("points", "dim", "floor"), [(900, 3, 1e-4), (2_500, 40, 1e-2), (60, 2, 0.5)])
def test_a_mixture_is_that_of_scikit_learn(points, dim, floor, rng):
    """From the same clusters of k-means, in more than one part and in a single one; singular covariances too."""
    x = torch.randn(points, dim, generator=rng).double() + 3 * torch.randint(0, 3, (points, 1), generator=rng)
    x[:, -1] = x[:, 0]
    known = {"max_iter": 60, "tol": 1e-3, "reg_covar": floor, "random_state": 3}
    theirs = GaussianMixture(4, **known).fit(x.numpy())
    first = torch.nn.functional.one_hot(torch.from_numpy(KMeans(4, n_init=1, random_state=3).fit(x).labels_).long(), 4)
    ours = fit_mixture(x, first, floor=floor, steps=60, tolerance=1e-3)
    torch.testing.assert_close(ours.mean, torch.from_numpy(theirs.means_), rtol=0, atol=1e-7)
    torch.testing.assert_close(ours.share, torch.from_numpy(theirs.weights_), rtol=0, atol=1e-7)
    covariance = ours.factor @ ours.factor.mT
    torch.testing.assert_close(covariance, torch.from_numpy(theirs.covariances_), rtol=0, atol=1e-7)
    belongs = torch.from_numpy(theirs.predict_proba(x.numpy()))
    torch.testing.assert_close(ours.log_each(x).softmax(1), belongs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first": torch.ones(3, 2)}, r"first: expected shape \(4, K\), got \(3, 2\)"),
        ({"floor": 0.0}, "floor: expected "),
        ({"steps": 0}, "steps: expected "),
    ],
)
def test_bad_mixtures_are_named(change, message):
    sizes = {"first": torch.ones(4, 2), "floor": 0.1, "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        fit_mixture(torch.zeros(4, 1), **sizes, tolerance=1e-3)


@pytest.mark.parametrize("clusters", [2, 6])
def test_reference_shares_are_met_by_every_member(clusters, rng):
    weight = cluster_weights(*two_groups(rng), clusters=clusters, members=3, shrinkage=0, generator=rng)
    assert weight.mean(1).tolist() == pytest.approx([1] * 3, abs=1e-5)
    assert (weight[:, 1800:].sum(1) / 2000).tolist() == pytest.approx([0.5] * 3, abs=0.02)


def test_shrinkage_counts_as_biased_images(rng):
    """Forty images half in each group and forty pseudo-images at .1: a share of .3."""
    biased, reference, fold = two_groups(rng)
    few = {"reference": reference[:40], "fold": fold[:40] + 9, "clusters": 2, "members": 1, "generator": rng}
    assert float(cluster_weights(biased, **few, shrinkage=40)[0, 1800:].sum()) / 2000 == pytest.approx(0.3, abs=0.02)


def test_a_member_never_counts_its_own_fold(rng):
    """All of the rare group in one fold: the member without it finds none there."""
    biased, reference, _ = two_groups(rng)
    fold = (reference[:, 0] < 0).long()
    weight = cluster_weights(biased, reference, fold, clusters=2, members=2, shrinkage=0, generator=rng)
    assert (weight[:, 1800:].sum(1) / 2000).tolist() == pytest.approx([0.0, 1.0], abs=0.12)


def test_scores_are_centred_coordinates_of_one_scale(rng):
    """Two orthogonal patterns of sd 3 and 1: scores of sd 1 and 1/3, whatever the pixels' units."""
    plane = torch.linalg.qr(torch.randn(16, 2, generator=rng)).Q
    codes = torch.randn(4000, 2, generator=rng) * torch.tensor([3.0, 1.0])
    images = (7 * codes @ plane.T + 5).reshape(-1, 1, 4, 4)
    first, again = principal_scores(images, images[:50], components=2, generator=rng)
    assert first.std(0).tolist() == pytest.approx([1, 1 / 3], abs=0.03)
    assert first.mean(0).tolist() == pytest.approx([0, 0], abs=1e-6)
    torch.testing.assert_close(first[:50], again)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_start_is_the_log_ratio_of_weighted_codes(share, rng):
    """Codes of two laws at .9/.1, as they come or weighted evenly: E is known up to a constant, ."""
    mean = torch.tensor([[-0.8], [0.8]]).repeat_interleave(torch.tensor([900, 100]), 0)
    codes = Codes.split(mean, torch.full_like(mean, 0.6), 1, rng)
    weight = torch.where(mean[:, 0] < 0, (1 - share) / 0.9, share / 0.1)
    fit_start(energy := EnergyNet(1, limit=4.0, generator=rng), codes, weight, QUICK, generator=rng)
    z = torch.linspace(-1.5, 1.5, 31)
    density = (1 - share) * Normal(-0.8, 0.6).log_prob(z).exp() + share * Normal(0.8, 0.6).log_prob(z).exp()
    gap = energy.members(z[:, None]).detach() + density.log() - Normal(0, 1).log_prob(z)
    assert float((gap - gap.mean(1, keepdim=True)).abs().max()) < 0.4


def test_members_start_alike_and_bounded(rng):
    one = EnergyNet(2, generator=rng)
    with torch.no_grad():
        one.weights[-1].fill_(0.1)
    z = torch.randn(5, 2, generator=rng)
    members = EnergyNet(2, members=3, generator=rng).start_from(one).members(z)
    assert torch.allclose(members, one(z).expand(3, 5), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: principal_scores(torch.zeros(1, 4), torch.zeros(1, 4), generator=g), "biased: expected at least 2"),
        (lambda g: principal_scores(torch.zeros(3, 4), torch.zeros(1, 5), generator=g), "reference: expected images"),
        (lambda g: principal_scores(torch.zeros(3, 4), torch.zeros(1, 4), components=0, generator=g), "components"),
        (lambda g: weigh(g, clusters=0), "clusters: expected"),
        (lambda g: weigh(g, members=0), "members: expected"),
        (lambda g: weigh(g, shrinkage=-1), "shrinkage: expected"),
        (lambda g: weigh(g, reference=torch.zeros(4, 3)), "reference: expected 2 features"),
        (lambda g: start(g), "weight: expected shape"),
    ],
)
def test_bad_input(call, message, rng):
    with pytest.raises(ValueError, match=message):
        call(rng)


def weigh(generator, reference=None, **settings):
    sizes = {"clusters": 2, "members": 1, **settings}
    reference = torch.zeros(4, 2) if reference is None else reference
    return cluster_weights(torch.zeros(50, 2), reference, torch.zeros(4).long(), **sizes, generator=generator)


def start(generator):
    codes = Codes.split(torch.zeros(5, 1), torch.ones(5, 1), 1, generator)
    return fit_start(EnergyNet(1), codes, torch.ones(4), QUICK, generator=generator)
