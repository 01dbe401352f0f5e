"""Masks, losses, tests of fit and scores against plain forms: loops, quotients of differences, and exact bounds."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from latentebm.missing.mechanisms import (
    MAR,
    MCAR,
    ByClass,
    ColumnDriven,
    ImagePixels,
    MissingDataWarning,
    MNARDataset,
    Patterns,
    SelfMasking,
    make_missing,
    make_missing_values,
    mechanism,
)
from latentebm.missing.mechanisms.mechanism import link, solve_link, standard_score
from latentebm.missing.mechanisms.table import Table
from latentebm.models.energies import EnergyNet
from latentebm.objectives.contrast import contrastive_loss, gradient_penalty, interpolates, jem_loss
from latentebm.objectives.sampler_entropy import entropy_surrogate, sampler_score
from latentebm.objectives.score_matching import (
    check_scales,
    denoising_score_matching,
    exact_score_matching,
    multiscale_score_matching,
    sliced_score_matching,
)
from latentebm.objectives.tilt_losses import gain, posterior_score_loss
from latentebm.rng import integers, normal, permutation, uniform
from latentebm.sampling import agreement, classifier_test, stein_test
from latentebm.sampling.compiled.perceptrons import FusedMLP, compiled_form
from latentebm.sampling.compiled.rounding import RoundedPerceptrons, rounded, rounded_form
from latentebm.sampling.diagnostics import max_rhat
from latentebm.sampling.goodness import _p_value, _radial
from latentebm.tilting.held_out import held_out_draws, held_out_gain
from tests.sampling_targets import gen


class Zeros:
    """A source of chance whose every number is 0, below any positive probability."""

    def random(self, n):
        return np.zeros(n)

    def choice(self, n, size, p):
        return np.zeros(size, dtype=int)


def removed(mechanism, x, rate=None, y=None):
    lost = np.zeros((np.shape(x)[0], int(np.prod(np.shape(x)[1:]))), dtype=bool)
    for columns, rows in mechanism.remove(Table(x, y), rate, Zeros()):
        lost[np.ix_(rows, columns)] = True
    return lost


def test_what_cannot_go_missing_stays_whatever_the_chance():
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 0, 0, 1, 1, 2])
    assert removed(ByClass({1: 0.5, 2: 0.0}), x, y=y).any(1).tolist() == [False, False, False, True, True, False]
    assert removed(ByClass({1: 1.0}, columns=[0]), x, rate=1 / 3, y=y).any(1).tolist() == [False] * 3 + [True] * 2 + [
        False
    ]
    assert not removed(ByClass({1: 1.0}), x, rate=0.0, y=y).any()
    assert not removed(MCAR(), x, rate=0.0).any()
    assert not removed(ImagePixels(3.0), x[:, None], rate=0.0).any()
    assert removed(ImagePixels(3.0), x[:, None]).sum() == 9
    assert not removed(SelfMasking("hard", intercept=-9.0), x).any()
    assert removed(SelfMasking("hard", intercept=0.0), x).sum() == 6
    assert not removed(MAR([0]), x, rate=0.0).any()
    assert not removed(ColumnDriven(0), x, rate=0.0).any()
    assert not removed(Patterns([[0, 1]]), x, rate=0.0).any()


def test_rates_are_reached_up_to_all_that_can_go():
    x, y = np.zeros((8, 3)), np.arange(8) % 4
    reach = 0.25
    for rate in (reach, reach * (1 + 1e-12)):
        assert removed(ByClass({0: 0.8}), x, rate=rate, y=y).sum() == 6
    with pytest.raises(ValueError, match=r"rate: expected at most 0\.2500, all that the rates given can lose"):
        removed(ByClass({0: 0.8}), x, rate=reach * 1.001, y=y)
    with pytest.raises(ValueError, match=r"rate: expected at most 0\.0000"):
        removed(ByClass({0: 0.0}), x, rate=0.1, y=y)
    removed(ByClass({0: 1.0}), np.full((4, 1), np.nan), rate=0.5, y=np.zeros(4))  # nothing there to lose
    images = np.zeros((4, 2, 2))
    images[:, 0, 0] = 20.0
    assert removed(ImagePixels(0.5), images).sum() == 4
    images[:, 0, 0] = 20.1
    with pytest.raises(ValueError, match="threshold: expected one on the images' scale"):
        removed(ImagePixels(0.5), images)
    for threshold in (1.0, 0.0):
        assert removed(ImagePixels(threshold), images).any()


def test_scores_of_columns():
    x = np.array([-1.0, 1.0, -2.0, 2.0])
    for direction, expected in (("high", x), ("low", -x), ("tails", abs(x)), ("middle", -abs(x))):
        z, constant = standard_score(x, direction)
        assert not constant
        np.testing.assert_allclose(z, expected / np.sqrt(2.5))
    small = 1 + 1e-9 * x
    assert not standard_score(small, "high")[1]
    shifted, constant = standard_score(np.array([1e-9, 1e-9, 1.0, -1.0]), "high")
    assert not constant
    assert shifted.std() == pytest.approx(1)
    flat, constant = standard_score(np.full(3, 0.1) * 3, "high")
    assert (flat.tolist(), constant) == ([0, 0, 0], True)
    assert link(np.array([-1.0, 0.0, 1e-9]), "hard").tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["logistic", "probit"])
@pytest.mark.parametrize("rate", [1e-4, 0.3, 0.999])
def test_intercepts_reach_their_rate(kind, rate):
    for score in (np.random.default_rng(0).normal(size=500), np.zeros(9), np.array([0.0, 1e6]), np.array([5.0])):
        for slope in (0.0, 2.0, 1e3):
            if score.max() < 1e6 or rate == 0.3:
                p = solve_link(score, kind, slope, rate)
                assert (np.diff(p[np.argsort(score)]) >= 0).all()
                assert score.max() == 1e6 or p.mean() == pytest.approx(rate, abs=2e-6)


def test_a_pattern_is_driven_by_columns_that_all_patterns_keep():
    x = np.random.default_rng(0).normal(size=(400, 3))
    mechanism = Patterns([[1, 0, 1], [1, 1, 0]], weights=[[1, 0, 2], [1, 3, 0]], kind="hard")
    total = mechanism._weighted(Table(x), np.asarray(mechanism.weights, float), np.arange(400) % 2)
    z = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(total, np.where(np.arange(400) % 2, z[:, 0] + 3 * z[:, 1], z[:, 0] + 2 * z[:, 2]))
    lost = removed(Patterns([[1, 0, 0]], kind="hard"), x, rate=0.25)
    assert np.array_equal(lost[:, 1], z[:, 0] > np.sort(z[:, 0])[299])
    assert not lost[:, 0].any()


def test_columns_masks_and_kinds_of_items():
    table = Table(np.ma.masked_array(np.arange(6.0).reshape(3, 2), mask=[[0, 1], [0, 0], [1, 0]]))
    assert table.seen.tolist() == [[True, True, False], [False, True, True]]
    wide = Table(np.arange(40.0).reshape(2, 20))
    assert wide.indices([-20, 19, -1, 0]) == [0, 19]
    for column in (20, -21):
        with pytest.raises(ValueError, match="columns: expected names or numbers of 20 columns"):
            wide.indices([column])
    assert [wide.raw(j).tolist() for j in (0, 7, 8, 19, 3)] == [[j, 20.0 + j] for j in (0, 7, 8, 19, 3)]
    items = [(torch.arange(2), "a"), (torch.arange(2), "b")]
    with pytest.warns(MissingDataWarning):
        x, mask, label = MNARDataset(items, ByClass({"b": 1.0}), fill=-1.0)[1]
    assert (x.tolist(), mask.tolist(), label) == ([-1.0, -1.0], [False, False], "b")
    with pytest.warns(MissingDataWarning, match="3 rows"):
        scalars = MNARDataset(torch.arange(6.0), SelfMasking("hard", intercept=0.0))
    assert scalars.mask.tolist() == [True] * 3 + [False] * 3
    for label in (torch.tensor([1]), np.float32(1), 1, True, np.array(1)):
        with pytest.warns(MissingDataWarning):
            assert not MNARDataset([(torch.ones(2), label)], ByClass({1: 1.0})).mask.any()
    held = MNARDataset(torch.arange(6.0).double().view(3, 2), MCAR(), rate=0.0)
    assert (held[0][0].dtype, held[2][0].tolist()) == (torch.float64, [4, 5])
    with pytest.raises(ValueError, match="items whose second entry is one number or text"):
        MNARDataset([(torch.ones(2), [1, 2])], ByClass({1: 1.0}))
    for drivers in ([0, 1], []):
        with pytest.raises(ValueError, match="targets: expected columns other than the drivers"):
            make_missing(np.ones((3, 2)), MAR(drivers), rate=0.1)
    assert make_missing_values(np.random.default_rng(0).normal(size=(60, 2)), mcar_rate=0.1, random_state=0)[1][
        :, 0
    ].all()
    with pytest.raises(ValueError, match="X: expected at least two columns"):
        make_missing_values(np.ones((3, 1)), mcar_rate=0.1)
    with pytest.raises(ValueError, match="boolean rows of shape"):
        make_missing(np.ones((3, 2)), SimpleMechanism())


class SimpleMechanism(MCAR):
    def remove(self, table, rate, rng):
        yield [0], np.ones(3)


def quadratic(a):
    return lambda x: 0.5 * torch.einsum("...i,ij,...j->...", x, a, x)


@pytest.mark.parametrize("members", [(), (3,)])
def test_score_matching_by_hand(members):
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    x = torch.randn(*members, 6, 2, generator=gen()).double()
    slope = x @ a
    exact = (0.5 * slope.square().sum(-1) - 3).mean(-1)
    torch.testing.assert_close(exact_score_matching(quadratic(a), x), exact)
    for projection in ("gaussian", "rademacher"):
        for reduced in (True, False):
            rng, total = gen(2), torch.zeros(members).double()
            for _ in range(3):
                v = normal(x.shape, rng, x)
                v = torch.where(v < 0, -1.0, 1.0).double() if projection == "rademacher" else v
                first = slope.square().sum(-1) if reduced else (slope * v).sum(-1).square()
                total += (0.5 * first - ((v @ a) * v).sum(-1)).mean(-1)
            own = {"projection": projection, "projections": 3, "reduced": reduced, "generator": gen(2)}
            torch.testing.assert_close(sliced_score_matching(quadratic(a), x, **own), total / 3)
    for paired in (True, False):
        noise = normal(x.shape, gen(2), x)
        losses = [((x + s * 0.3 * noise) @ a - s * noise / 0.3).square().sum(-1) for s in ((1, -1) if paired else (1,))]
        found = denoising_score_matching(quadratic(a), x, 0.3, generator=gen(2), paired=paired)
        torch.testing.assert_close(found, 0.5 * torch.stack(losses).mean(0).mean(-1))
    scale = torch.rand(x.shape, generator=gen(3)).double() + 0.5
    noise = normal(x.shape, gen(2), x)
    losses = []
    for s in (1, -1):
        z = x + s * scale * noise
        losses.append((z @ a + z - (z - x) / scale**2).square().sum(-1))
    found = posterior_score_loss(quadratic(a), x, scale, generator=gen(2))
    torch.testing.assert_close(found, scale.square().mean() * 0.5 * torch.stack(losses).mean(0).mean(-1))


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_many_noise_levels_by_hand(weight):
    x, sigma = torch.randn(5, 3, generator=gen()).double(), torch.linspace(0.5, 2, 5).double()

    def energy(x, s):
        return x.square().sum(-1) * (1 + s) + s.log() * x[:, 0]

    noise, losses = normal(x.shape, gen(2), x), []
    for e in (noise, -noise):
        y = x + sigma[:, None] * e
        slope = 2 * y * (1 + sigma)[:, None]
        slope[:, 0] += sigma.log()
        rate = sigma * y.square().sum(-1) + y[:, 0]  # along log σ
        losses.append((sigma[:, None] * slope - e).square().sum(-1) + weight * (rate + e.square().sum(-1) - 3).square())
    found = multiscale_score_matching(energy, x, sigma, generator=gen(2), scale_weight=weight)
    torch.testing.assert_close(found, 0.5 * torch.stack(losses).mean())


def test_energies_that_do_not_hang_on_their_points_are_refused():
    x, theta = torch.ones(4, 2), torch.ones((), requires_grad=True)
    with pytest.raises(ValueError, match="energy: expected one that depends on x"):
        exact_score_matching(lambda x: 0 * x.sum(-1), x)
    exact_score_matching(lambda x: 0 * theta * x.sum(-1), x)  # which a fit can change
    with torch.no_grad():
        exact_score_matching(lambda x: 0 * x.sum(-1), x)
    for bad, down, words in (([], False, "got no level"), ([1.0, 0.0], False, "0 … 1"), ([1.0, math.inf], False, "inf"),
                             ([1.0, 1.0], True, "levels that fall"), ([math.nan], False, "nan")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            check_scales(torch.tensor(bad), sorted_down=down)
    assert check_scales(torch.tensor([2.0, 2.0])).tolist() == [2, 2]


def test_contrasts_and_their_bounds():
    x, other = torch.randn(3, 4, 2, generator=gen()), torch.randn(3, 4, 2, generator=gen(1))
    for lead in (1, 2):
        share = uniform((*x.shape[:lead], *[1] * (3 - lead)), gen(2), x)
        found = interpolates(x, other, generator=gen(2), lead=lead)
        torch.testing.assert_close(found.detach(), share * x + (1 - share) * other)
        assert found.requires_grad
    logits, y, e = torch.zeros(2, 2), torch.tensor([0, 1]), torch.zeros(2)
    for own, name in (({"penalty": -1.0}, "penalty"), ({"weight": -1.0}, "weight")):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            jem_loss(logits, y, e, e, **own)
    for own, name in (({"energy_penalty": -1.0}, "energy_penalty"), ({"weight": -1.0}, "weight")):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            contrastive_loss(e, e, **own)
    for bad in (torch.zeros(()), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match="positive: expected"):
            contrastive_loss(bad, e)
        with pytest.raises(ValueError, match="negative: expected"):
            contrastive_loss(e, bad)
    for labels, words in (([0, 2], "0 … 2"), ([-1, 0], "-1 … 0")):
        with pytest.raises(ValueError, match=f"y: expected labels of 0 … 1, got {words}"):
            jem_loss(logits, torch.tensor(labels), e, e)
    for parts in ((logits[0], y, e), (logits, y[:1], e), (logits, y, e[:1])):
        with pytest.raises(ValueError, match="logits: expected shapes"):
            jem_loss(*parts, e)


def test_a_sampler_of_linear_codes_has_a_gaussian_score():
    w = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0]]).double()
    z = torch.randn(7, 2, generator=gen()).double()
    x = z @ w + 0.4 * torch.randn(7, 3, generator=gen(1)).double()
    found = sampler_score(lambda z: z @ w, x, z, noise=0.4, k=2, generator=gen(2))
    law = torch.distributions.MultivariateNormal(torch.zeros(3).double(), w.T @ w + 0.16 * torch.eye(3).double())
    torch.testing.assert_close(found.log_density, law.log_prob(x))
    torch.testing.assert_close(found.score, -x @ torch.linalg.inv(law.covariance_matrix))
    far = sampler_score(lambda z: 0 * z @ w, x + 50, z, noise=0.4, generator=gen(2)).score
    torch.testing.assert_close(far.norm(dim=1), torch.full((7,), 3.0 * math.sqrt(3) / 0.4).double())
    assert entropy_surrogate(x, torch.ones_like(x)).item() == pytest.approx(-float(x.sum(-1).mean()))


@pytest.mark.parametrize("limit", [None, 0.7])
def test_rounded_perceptrons_are_the_plain_ones_of_rounded_operands(limit):
    sizes, members = (3, 5, 4, 1), 2
    weights = [torch.randn(members, a, b, generator=gen(a)) for a, b in itertools.pairwise(sizes)]
    biases = [torch.randn(members * b, generator=gen(b + 9)) for b in sizes[1:]]
    x = torch.randn(6, 3, generator=gen()).requires_grad_()
    for precision in ("fp32", "tf32", "bf16"):
        net = RoundedPerceptrons(weights, biases, limit, precision)
        value, grad = net.value_and_grad(x)
        total = 0
        for m in range(members):
            active = x
            for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
                exact = k == 2
                own = w[m] if exact else rounded(w[m], precision)
                rough = active if exact else active + (rounded(active.detach(), precision) - active.detach())
                active = rough @ own + b.view(members, -1)[m]
                active = active if exact else torch.nn.functional.silu(active)
            total = total + (active if limit is None else limit * torch.tanh(active / limit))[:, 0] / members
        torch.testing.assert_close(value, total.detach(), rtol=1e-5, atol=1e-5)
        (slope,) = torch.autograd.grad(total.sum(), x)
        off = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 5e-2}[precision]
        torch.testing.assert_close(grad, slope, rtol=off, atol=off)
        torch.testing.assert_close(net(x), value)
    with pytest.raises(ValueError, match="precision: expected fp32 where the energy is no perceptron"):
        rounded_form(lambda x: x, "bf16")
    layers = SimpleNamespace(perceptrons=(weights, biases, limit))
    torch.testing.assert_close(rounded_form(layers, "bf16")(x), value)


def test_classifier_test_by_hand():
    x, y = torch.randn(13, 2, generator=gen()), 0.3 * torch.randn(10, 2, generator=gen(1)) + 1
    found, rng = classifier_test(x, y, generator=gen(2), permutations=9, folds=3), gen(2)
    pooled = torch.cat([x, y]).double()
    pooled = (pooled - pooled.mean(0)) / pooled.std(0)
    first = torch.stack([torch.arange(23), *(permutation(23, rng, "cpu") for _ in range(9))], 1) < 13
    landmarks = pooled[permutation(23, rng, "cpu")]
    distance = torch.cdist(pooled, landmarks)
    phi = torch.exp(-distance / distance.median())
    phi, score = phi - phi.mean(0), np.zeros((23, 10))
    for part in permutation(23, rng, "cpu").chunk(3):
        rest = torch.tensor([i for i in range(23) if i not in part.tolist()])
        gram = phi[rest].T @ phi[rest] + 10 * torch.eye(23).double()
        score[part] = phi[part] @ torch.linalg.solve(gram, phi[rest].T @ (first[rest].double() - 0.5))
    auc = []
    for k in range(10):
        inside = first[:, k].numpy()
        auc.append((rankdata(score[:, k])[inside].sum() - 13 * 14 / 2) / 130)
    assert found.auc == pytest.approx(auc[0], abs=1e-9)
    assert found.p_value == (1 + sum(a >= auc[0] - 1e-12 for a in auc[1:])) / 10
    assert _p_value(torch.tensor(1.0), torch.tensor([1.0, 0.0, 2.0])) == 0.75
    tiny = classifier_test(1e-6 * x, 1e-6 * y, generator=gen(2), permutations=9, folds=3)
    assert tiny.auc == pytest.approx(found.auc)
    for few in (x[:9], x[:10]):
        if len(few) < 10:
            with pytest.raises(ValueError, match="samples: expected at least 10"):
                classifier_test(few, y, generator=gen(), permutations=1)
        else:
            classifier_test(few, y, generator=gen(), permutations=1)
    assert _radial(pooled, gen())(torch.arange(9), first[:9], torch.arange(4)).shape == (4, 10)


def test_stein_test_by_hand():
    x = torch.randn(11, 2, generator=gen()).double()
    found = stein_test(lambda x: x.square().sum(1) / 2, x, generator=gen(1), bootstraps=19)
    pairs = [(i, j) for i in range(11) for j in range(11) if i != j]
    m = float(torch.tensor([float((x[i] - x[j]).square().sum()) for i, j in pairs]).median())
    kernel = np.zeros((11, 11))
    for i, j in pairs:
        a, b = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
        k = (1 + (a - b).square().sum() / m) ** -0.5
        (da,) = torch.autograd.grad(k, a, create_graph=True)
        (db,) = torch.autograd.grad(k, b, create_graph=True)
        trace = sum(torch.autograd.grad(da[c], b, retain_graph=True)[0][c] for c in range(2))
        kernel[i, j] = float((x[i] @ x[j] * k - x[i] @ db - x[j] @ da + trace).detach())
    assert found.discrepancy == pytest.approx(kernel.sum() / 110, rel=1e-5)
    sign = integers(2, (11, 19), gen(1), "cpu").double().numpy() * 2 - 1
    drawn = np.einsum("ik,ij,jk->k", sign, kernel, sign)
    assert found.p_value == (1 + (drawn >= kernel.sum()).sum()) / 20
    moved = stein_test(lambda x: (x - 3e6).square().sum(1) / 2, x + 3e6, generator=gen(1), bootstraps=19)
    assert moved.discrepancy == pytest.approx(found.discrepancy, rel=1e-5)


def test_agreement_by_hand():
    x, y = torch.randn(5, 2, generator=gen()), torch.randn(4, 2, generator=gen(1)) + 0.5
    pooled, rng = torch.cat([x, y]), gen(2)

    def distance(first, second):
        def mean(a, b):
            return sum(float((u - v).norm()) for u in a for v in b) / (len(a) * len(b))

        return 2 * mean(first, second) - mean(first, first) - mean(second, second)

    drawn = []
    for _ in range(19):
        order = permutation(9, rng, "cpu")
        drawn.append(distance(pooled[order[:5]], pooled[order[5:]]))
    found = agreement(x, y, generator=gen(2), permutations=19)
    assert found.distance == pytest.approx(distance(x, y), rel=1e-4)
    assert found.p_value == (1 + sum(d >= found.distance for d in drawn)) / 20
    assert math.isnan(found.auc)
    tied = agreement(x, x, generator=gen(2), permutations=1)
    assert tied.p_value == 1
    for bad in ((x[:1], y), (x, y[:1]), (x[:, 0], y[:, 0]), (x, y[:, :1])):
        with pytest.raises(ValueError, match="samples: expected"):
            agreement(*bad, generator=gen(), permutations=1)
    assert not math.isnan(agreement(x.repeat(2, 1), y.repeat(3, 1)[:10], generator=gen(), permutations=1).auc)
    still = torch.randn(9, 3, 2, generator=gen())
    still[:, 0, 1] = 2.0
    assert max_rhat(still) is not None
    still[..., 1] = 2.0
    assert max_rhat(still) is None


def test_held_out_draws_are_held_out_and_as_many_as_asked():
    asked = []
    fold = torch.tensor([0, 1, 1, 0, 1])

    def base(k, generator, *, held_out=False):
        asked.append((k, held_out))
        return torch.zeros(k, 2)

    sides = SimpleNamespace(
        fold=fold, dim=2, base=base, draw=lambda rows, generator: rows[:, None].float() * torch.ones(2)
    )
    folds, base_draws = held_out_draws(sides, 2, 100, gen())
    assert asked == [(100, True)]
    assert [f[:, 0].tolist() for f in folds] == [[0.0, 3.0] * 8, [1.0, 2.0, 4.0] * 8]
    assert len(held_out_draws(sides, 2, 3, gen())[0][0]) == 2
    net = EnergyNet(2, members=2)
    for values in net.parameters():
        values.data.normal_(generator=gen(3))
    expected = []
    for m in range(2):
        with torch.no_grad():
            expected.append(gain(3 * net.members(folds[m])[m], 3 * net.members(base_draws)[m]))
    found = held_out_gain(net, sides, lambda e: 3 * e, draws=100, generator=gen())
    assert found == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["logistic", "probit"])
def test_an_intercept_takes_few_steps_and_one_or_two_over_all_rows(kind, monkeypatch):
    asked, own = [], mechanism.link
    monkeypatch.setattr(mechanism, "link", lambda logit, kind: asked.append(len(logit)) or own(logit, kind))
    score = np.random.default_rng(0).normal(size=20_000)
    for rate, slope in ((0.3, 2.0), (0.02, 4.0), (0.9, 1.0)):
        asked.clear()
        solve_link(score, kind, slope, rate)
        assert asked.count(20_000) <= 2
        assert len(asked) <= 8
    bins, counts = mechanism._binned(np.array([0.0, 0.0, 1.0, 0.5]), 5)
    assert (bins.tolist(), counts.tolist()) == ([0, 0.5, 1], [2, 1, 1])


def test_a_penalty_of_slopes_can_be_learned_from():
    scale = torch.tensor(2.0, requires_grad=True)
    for center, slope in ((0.0, 2 * 2 * 25), (1.0, 2 * (10 - 1) * 5)):
        x = torch.ones(3, 2, requires_grad=True)
        penalty = gradient_penalty(scale * (x * torch.tensor([3.0, 4.0])).sum(1), x, center=center)
        assert torch.autograd.grad(penalty, scale)[0].item() == pytest.approx(slope)


def test_perceptrons_called_give_their_energy_alone():
    net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.SiLU(), torch.nn.Linear(5, 3), torch.nn.SiLU())
    net.append(torch.nn.Linear(3, 1))
    for p in net.parameters():
        p.data.normal_(generator=gen(len(p)))
    x = torch.randn(7, 2, generator=gen()).requires_grad_()
    (slope,) = torch.autograd.grad(net(x).sum(), x)
    for form in filter(None, (FusedMLP(net), compiled_form(FusedMLP(net)))):
        torch.testing.assert_close(form(x.detach()), net(x.detach())[:, 0].detach())
        torch.testing.assert_close(form.value_and_grad(x.detach())[1], slope)


def test_only_perceptrons_are_fused():
    one, two, silu = torch.nn.Linear(2, 1), torch.nn.Linear(2, 2), torch.nn.SiLU()
    without_bias = torch.nn.Linear(2, 1, bias=False)
    for net in (
        [two, torch.nn.ReLU(), one],
        [two],
        [],
        [without_bias],
        [silu, one],
        [one, silu],
        [two, silu, one, silu],
    ):
        with pytest.raises(ValueError, match="net: expected Linear, SiLU"):
            FusedMLP(torch.nn.Sequential(*net))
