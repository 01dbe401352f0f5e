"""Closed forms that notice one rank, one root or one sign off in masks, weights, moves and losses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyro.ops.stats import fit_generalized_pareto
from scipy.special import ndtr
from sklearn.mixture import GaussianMixture
from torch import nn

from latentebm.missing.mechanisms import (
    MAR,
    ImagePixels,
    MissingDataWarning,
    SelfMasking,
    make_missing,
    make_missing_values,
)
from latentebm.missing.mechanisms.mechanism import solve_link
from latentebm.missing.mechanisms.table import Table
from latentebm.models.energies import EnergyNet
from latentebm.objectives.contrast import contrastive_loss, gradient_penalty, jem_loss
from latentebm.objectives.sampler_entropy import mutual_information, scale_entropy
from latentebm.objectives.tilt_losses import calibrated, gain, log_partition, nce_loss
from latentebm.sampling import (
    HMC,
    ISIR,
    MALA,
    NUTS,
    PCN,
    PCNL,
    PMC,
    SGLD,
    SNIS,
    ULA,
    Auto,
    ConditionalSampler,
    ImproperSGLD,
    Labelled,
    Langevin,
    ParallelTempering,
    RandomWalk,
    Rejection,
    ReplayBuffer,
    TemperedSMC,
    WeightSums,
    bfmi,
    bracket_log_z,
    energy_differential,
    energy_penalty,
    max_rhat,
    rhat,
    run_chains,
    tune_step,
)
from latentebm.sampling.importance.two_stage import TwoStage
from latentebm.sampling.mcmc.moves import clip_gradient, move_block
from latentebm.sampling.mcmc.pyro_kernels import MOST_STEPS, RecordedHMC
from latentebm.tilting.clusters.reweight import cluster_weights, principal_scores
from latentebm.training.keep import BestState, Guard
from tests.sampling_targets import GaussianTilt, assert_mean, gen


def test_the_top_share_goes_and_ties_share_the_rest():
    """Water-filling: the highest go whole, one level in part, the rest stay; the mean is the rate."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        score, rate = rng.integers(0, 10, rng.integers(1, 30)).astype(float), rng.uniform(0.01, 0.99)
        p = solve_link(score, "hard", 1.0, rate)
        assert p.mean() == pytest.approx(rate, abs=1e-12)
        assert -1e-12 <= p.min() <= p.max() <= 1 + 1e-12
        assert (np.diff(p[np.argsort(score)]) >= -1e-12).all()
        levels = [set(np.round(p[score == s], 12)) for s in set(score)]
        assert all(len(level) == 1 for level in levels)
        assert sum(0 < level.pop() < 1 for level in levels) <= 1


def test_the_score_of_many_columns_has_the_variance_of_one():
    x = np.random.default_rng(0).normal(size=(400, 4))
    mechanism, z = MAR([0, 1, 2, 3]), (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(mechanism.score(Table(x), [0, 1, 2, 3]), z.sum(1) / 2)
    np.testing.assert_allclose(mechanism.score(Table(x), [1]), z[:, 1])


def test_without_a_rate_exactly_the_pixels_past_the_threshold_go():
    x, y = np.random.default_rng(0).integers(0, 4, (60, 5, 6)) / 4, np.arange(60) % 3
    inside = np.zeros((60, 5, 6), dtype=bool)
    inside[y != 1, 1:4, 2:5] = True
    for direction, past in (("high", x >= 0.5), ("low", x <= 0.5)):
        mechanism = ImagePixels(0.5, box=(1, 4, 2, 5), digits=[0, 2], direction=direction)
        assert np.array_equal(make_missing(x, mechanism, y=y)[1], ~(inside & past))
    centre = np.zeros((60, 5, 6), dtype=bool)
    centre[:30, 1:4, 1:5] = True
    x[:30] += 1
    x[30:] = 0
    assert np.array_equal(make_missing(x, ImagePixels(0.5, box="center"))[1], ~centre)
    centre[:30] = True
    with pytest.warns(MissingDataWarning, match="30 rows and 0 columns"):
        assert np.array_equal(make_missing(x, ImagePixels(0.5))[1], ~centre)


@pytest.mark.parametrize(
    ("size", "tail"), [(25, 5), (100, 20), (225, 45), (226, 46), (400, 60), (1_001, 95), (3_000, 165)]
)
def test_pareto_k_is_fitted_to_the_tail_of_the_paper(size, tail):
    """⌈min(S/5, 3√S)⌉ of the largest weights, above the next one."""
    w = torch.randn(size, generator=gen(size)).double().exp()
    sums = WeightSums(size)
    for part in w.log().split(7):
        sums.add(part)
    largest = w.sort().values
    expected = fit_generalized_pareto((largest[-tail:] - largest[-tail - 1]) / largest[-1])[0]
    assert sums.pareto_k == pytest.approx(float(expected), abs=1e-9)
    threshold = min(1 - 1 / math.log10(size), 0.7)
    assert sums.pareto_k_threshold == pytest.approx(threshold, abs=1e-12)
    effective = w.sum() ** 2 / (size * w.square().sum())
    assert sums.report()["reliable"] == (float(expected) < threshold and float(effective) >= 0.01)


def test_a_tail_too_short_or_alike_has_no_k():
    short = WeightSums(20)  # a tail of 4
    short.add(torch.randn(20, generator=gen()))
    assert (short.pareto_k, short.report()["reliable"]) == (None, False)
    for spread in (0.9e-6, 1.1e-6):  # single precision tells weights apart from a millionth on
        sums = WeightSums(1_000)
        sums.add(torch.linspace(0, spread * 999 / 95, 1_000).double())
        assert (sums.pareto_k is None) == (spread < 1e-6)
        assert sums.report()["reliable"]
    for size, threshold in ((10, 0), (11, 1 - 1 / math.log10(11))):
        few = WeightSums(size)
        few.add(torch.zeros(size))
        assert few.pareto_k_threshold == pytest.approx(threshold)


def test_proposals_that_are_not_finite_are_counted_and_taken_back():
    """One chain each: a finite proposal, energies +∞, NaN and −∞, and a gradient that is not finite."""
    energy = torch.tensor([0.0, math.inf, math.nan, -math.inf, 0.0, 0.0])
    slope = torch.tensor([1.0, 1.0, 1.0, 1.0, math.inf, math.nan])

    class Potential:
        def value_and_grad(self, x):
            return energy, slope[:, None].expand_as(x)

    start = torch.arange(6.0)[:, None]
    point = (start, torch.zeros(6), torch.zeros(6, 1))
    for uniform in (None, torch.zeros(1, 6)):
        noise = torch.ones(1, 6, 1)
        (x, u, _), counts, _ = move_block(Potential(), point, noise, uniform, [(0.5, 1.0)], None, None, 0)
        assert int(counts[2]) == 4
        assert (x - start)[:, 0].tolist() == [1, 0, 0, 1, 0, 0]
        assert u.tolist() == [0, 0, 0, -math.inf, 0, 0]


def test_the_temperature_of_set_apart_drift_and_noise_is_that_of_its_law():
    """For small steps the variance of N(0, 1)'s chains, σ²/(1 − (1 − α/2)²), is the temperature."""
    kernel = ImproperSGLD(alpha=1e-3, sigma=0.02)
    assert kernel.temperature == pytest.approx(0.02**2 / (1 - (1 - 0.5e-3) ** 2), rel=1e-3)


@pytest.mark.parametrize(("center", "expected"), [(0.0, [25, 100]), (1.0, [16, 81])])
def test_the_gradient_penalty_of_stacked_members_is_each_ones_own(center, expected):
    for event in ((2,), (1, 2)):
        z = torch.randn(2, 7, *event, generator=gen(), requires_grad=True)
        slopes = torch.tensor([[3.0, 4.0], [6.0, 8.0]]).view(2, 1, *[1] * (len(event) - 1), 2)
        energy = (z * slopes).flatten(2).sum(2)
        assert gradient_penalty(energy, z, center=center).tolist() == pytest.approx(expected, rel=1e-5)


def test_reweighting_hangs_on_its_generator_alone(monkeypatch):
    x = torch.cat([torch.randn(150, 2, generator=gen(1)) - 1, torch.randn(50, 2, generator=gen(2)) + 1])
    starts, fit = [], GaussianMixture.fit

    def noted(self, rows):
        starts.append((self.random_state, rows[0, 0]))
        assert (self.reg_covar, self.max_iter) == (1e-4, 60)
        return fit(self, rows)

    def weights(seed):
        fold = torch.arange(40) % 2
        return cluster_weights(x, x[-40:], fold, clusters=6, members=2, generator=gen(seed))

    monkeypatch.setattr(GaussianMixture, "fit", noted)
    first, _, again = (weights(seed) for seed in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.allclose(first[0], first[1], rtol=0.01)
    for seeds in zip(*starts, strict=True):  # every clustering has a start and an order of its own
        assert len(set(seeds[:4])) == 4
        assert sorted(seeds[:2]) == sorted(seeds[4:])


SAMPLERS = [SNIS(pool=50), ISIR(), Rejection(pilot=50), PMC(MALA(0.5), n_steps=3, size=10), TemperedSMC(particles=20)]
SAMPLERS += [Langevin(n_steps=3), HMC(chains=2, warm_up=5), NUTS(chains=2, warm_up=5), Auto(pool=50), TwoStage()]
SAMPLERS += [ParallelTempering()]


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "9"])
def test_counts_are_checked(bad):
    for sampler in SAMPLERS:
        with pytest.raises(ValueError, match="n: expected a whole number"):
            sampler.draw(GaussianTilt(), bad, generator=gen())
    x = torch.zeros(3, 2)
    for call in (
        lambda: SNIS(pool=50, chunk=bad).draw(GaussianTilt(), 5, generator=gen()),
        lambda: ISIR(chunk=bad).draw(GaussianTilt(), 5, generator=gen()),
        lambda: Rejection(pilot=50, chunk=bad).draw(GaussianTilt(), 5, generator=gen()),
        lambda: TwoStage(chunk=bad).draw(GaussianTilt(), 5, generator=gen()),
        lambda: Langevin(n_steps=3, chunk=bad).draw(GaussianTilt(), 5, generator=gen()),
        lambda: run_chains(lambda x: x.square().sum(1), x, ULA(0.1), 3, generator=gen(), chunk=bad),
    ):
        with pytest.raises(ValueError, match="chunk: expected a whole number"):
            call()


def test_limits_and_retries_are_checked():
    for limit in (0.0, -1.0, math.nan, "4 nats"):
        with pytest.raises(ValueError, match="limit: expected"):
            EnergyNet(2, limit=limit)
    for settings in ({"retries": -1}, {"retries": 1.5}, {"every": 0}, {"max_gap": 0.0}, {"max_gap": math.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected"):
            Guard(nn.Linear(1, 1), **settings)
    assert Guard(nn.Linear(1, 1), retries=0, every=1).retries == 0


def test_sums_of_parts_merge_to_the_sums_of_the_whole():
    w = 2 * torch.randn(500, generator=gen()).double()
    whole, parts = WeightSums(500), [WeightSums(500) for _ in range(3)]
    whole.add(w)
    for sums, part in zip(parts, w.split([200, 1, 299]), strict=True):
        sums.add(part)
    merged = parts[0].merge(parts[1]).merge(parts[2])
    for name, value in whole.report().items():
        assert merged.report()[name] == pytest.approx(value, rel=1e-9)
    assert whole.log_z_se == pytest.approx(math.sqrt((1 / whole.ess - 1) / 500))


def test_two_rungs_bracket_log_z_by_plain_importance_sampling():
    """Without a temperature between, the ends are mean weights of the draws, less and plus three standard errors."""
    tilt, draws = GaussianTilt(), GaussianTilt.mean + 0.7 * torch.randn(300, 2, generator=gen(1))
    found = bracket_log_z(tilt, chains=400, ladder=[0, 1], draws=draws, generator=gen(2))
    forward, backward = WeightSums(400), WeightSums(300)
    forward.add(-tilt.energy(tilt.sample_base(400, generator=gen(2))))
    backward.add(tilt.energy(draws))
    assert found.forward == pytest.approx(forward.log_z, abs=1e-6)
    assert found.backward == pytest.approx(-backward.log_z, abs=1e-6)
    assert found.lower == pytest.approx(forward.log_z - 3 * forward.log_z_se, abs=1e-6)
    assert found.upper == pytest.approx(-backward.log_z + 3 * backward.log_z_se, abs=1e-6)


def test_draws_that_bracket_log_z_come_by_the_kernel_given(monkeypatch):
    seen, kernel = [], PCN(0.3)
    monkeypatch.setattr(TemperedSMC, "__post_init__", lambda self: seen.append(self.kernel))
    bracket_log_z(GaussianTilt(), kernel=kernel, chains=50, generator=gen())
    assert seen == [kernel]


def test_two_passes_see_one_pool():
    class Seen(GaussianTilt):
        def energy(self, u):
            pools.append(u)
            return super().energy(u)

    pools: list[torch.Tensor] = []
    SNIS(pool=90, chunk=20, resampling="residual").draw(Seen(), 9, generator=gen())
    assert len(pools) == 10
    assert torch.equal(torch.cat(pools[:5]), torch.cat(pools[5:]))


def test_a_guard_has_seen_no_gap_at_first_and_allows_its_bound():
    guard = Guard(nn.Linear(1, 1), max_gap=0.5)
    assert guard.trouble(torch.tensor(0.0)) == ""
    for gap, trouble in ((0.5, ""), (-0.5, ""), (0.51, "an energy gap of 0.51 nats, beyond ±0.5")):
        guard.observe(torch.tensor(gap))
        assert guard.trouble(torch.tensor(0.0)) == trouble
    assert guard.trouble(torch.tensor(-math.inf)) == "a loss of -inf"
    guard.observe(torch.tensor(math.nan))
    assert "gap of nan" in guard.trouble(torch.tensor(0.0))


def test_principal_scores_hang_on_their_generator_alone():
    """Of many images and few components scikit-learn looks for them at random."""
    x = torch.randn(520, 600, generator=gen())
    first, again = (principal_scores(x, x[:1], components=3, generator=gen(5))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_swaps_are_tested_by_both_energies():
    swap = ParallelTempering().log_swap((0.25, 1.0), (torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])))
    assert swap.tolist() == [1.5, -3.0]


def test_steps_are_tuned_as_the_paper_says():
    """On a flat potential every move is accepted, and the logarithm of the step rises by (t + 1)^−.6 (1 − α*)."""
    for n in (1, 4, 5):
        kernel, state = tune_step(
            lambda x: 0 * x.sum(1), torch.zeros(3, 1), RandomWalk(0.5), n, generator=gen(), target=0.3
        )
        steps = np.log(0.5) + 0.7 * np.cumsum(np.arange(1.0, n + 1) ** -0.6)
        assert kernel.step == pytest.approx(math.exp(steps[n // 2 :].mean()))
        assert state.step == n


def test_penalty_and_contrast_of_a_classifier():
    chains = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
    data = Labelled(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1]))  # energies −1, −4
    model = Labelled(torch.tensor([[5.0, 6.0]]), torch.tensor([1]))  # −6
    assert energy_penalty(chains, data, model).item() == pytest.approx((1 + 16) / 2 + 36)
    assert energy_differential(chains, data, model).item() == pytest.approx(-2.5 + 6)


def test_a_weak_tilt_takes_one_temperature_whose_error_is_that_of_its_weights():
    tilt = GaussianTilt()
    d = TemperedSMC(particles=500, ess=0.3, n_steps=3).draw(tilt, 500, generator=gen()).diagnostics
    assert d["temperatures"] == [0.0, 1.0]
    expected = math.sqrt((1 / tilt.rho - 1) / 2_000)  # the first places of all moves are fresh base draws
    assert d["log_z_se"] == pytest.approx(expected, rel=0.3)
    assert abs(d["log_z"] - tilt.log_z) < 4.9 * expected
    assert d["stage_ess"][0] == pytest.approx(1 / (1 + (1 / tilt.rho - 1) / 4), abs=0.05)
    assert d["evaluations"] == 500 * 4 + 500 + 500 * 3


def test_paths_of_one_coordinate_need_no_axis_for_it():
    trace = torch.randn(200, 4, generator=gen())
    assert rhat(trace).item() == pytest.approx(rhat(trace[..., None]).item())
    assert max_rhat(trace[:4]) == pytest.approx(float(rhat(trace[:4])))
    assert max_rhat(trace[:3]) is None
    assert max_rhat(trace[:, :1]) is None
    assert max_rhat(trace[:, :2]) is not None
    assert max_rhat(trace * 0) is max_rhat(trace[:1].expand(9, -1, -1)) is None


def test_energies_fraction_of_missing_information_by_hand():
    h = torch.tensor([[0.0, 1.0], [2.0, 1.5], [1.0, 4.0]])
    assert bfmi(h).tolist() == pytest.approx(
        [(4 + 1) / 2, (0.25 + 6.25) / float((h[:, 1] - h[:, 1].mean()).square().sum())]
    )


def test_clipped_gradients_keep_their_direction():
    grad = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.6, 0.8]])
    clipped, met = clip_gradient(grad, 1.0)
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]]))
    assert int(met) == 1


def test_a_buffer_gives_distinct_chains_of_the_labels_asked_for():
    y = torch.arange(30) % 3
    buffer = ReplayBuffer(torch.arange(30.0)[:, None], y)
    asked = torch.tensor([2, 0, 0, 2, 1, 2])
    rows = buffer.pick(6, generator=gen(), y=asked)
    assert torch.equal(y[rows], asked)
    assert len(set(rows.tolist())) == 6
    assert sorted(buffer.pick(30, generator=gen()).tolist()) == list(range(30))
    assert sorted(buffer.pick(10, generator=gen(), y=torch.ones(10).long()).tolist()) == list(range(1, 30, 3))
    for n, labels, words in ((31, None, "at most the buffer's 30"), (11, torch.ones(11).long(), "at most 10 chains")):
        with pytest.raises(ValueError, match=words):
            buffer.pick(n, generator=gen(), y=labels)
    for restart in (0.0, 1.0):
        moved = buffer.step(
            30, lambda held: held, base=lambda k, g: torch.full((k, 1), -1.0), restart=restart, generator=gen()
        )
        assert moved.restarted == 30 * restart
        assert bool((buffer.x == -1).all()) == bool(restart)


@pytest.mark.parametrize(
    ("kernel", "t", "expected"),
    [
        (ULA(0.5, temperature=4.0), 3, (0.5, 2.0)),
        (RandomWalk(0.7), 3, (0.0, 0.7)),
        (SGLD(a=8.0, b=4.0, gamma=0.5, temperature=0.25), 0, (2.0, 1.0)),
        (SGLD(a=8.0, b=4.0, gamma=0.5), 12, (1.0, 2**0.5)),
        (ImproperSGLD(alpha=0.4, sigma=0.3), 3, (0.2, 0.3)),
        (PCN(0.6), 3, (0.0, 0.6)),
        (PCN(0.6).with_step(3.0), 0, (0.0, 1.0)),
        (PCNL(2.0), 3, (2.0, 1.0)),
        (PCNL(0.5), 3, (0.5, 0.8)),
        (PCNL(0.5).with_step(9.0), 0, (2.0, 1.0)),
        (MALA(0.5, temperature=4.0).with_step(0.125), 0, (0.125, 1.0)),
    ],
)
def test_drift_and_noise_of_a_step(kernel, t, expected):
    assert kernel.scales(t) == pytest.approx(expected)


def test_objectives_by_hand():
    q, p = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.25, -0.5])
    soft = lambda x: math.log1p(math.exp(x))  # noqa: E731
    nce = (soft(0.5) + soft(-1.0)) / 2 + (soft(-2.0) + soft(-0.25) + soft(0.5)) / 3
    assert nce_loss(q, p).item() == pytest.approx(nce, rel=1e-6)
    log_z = math.log((math.exp(-2) + math.exp(-0.25) + math.exp(0.5)) / 3)
    assert log_partition(p).item() == pytest.approx(log_z, rel=1e-6)
    assert gain(q, p).item() == pytest.approx(0.25 - log_z, rel=1e-6)
    contrast = 3 * (-0.25 - 1.75 / 3) + 0.2 * (1.25 / 2 + 4.3125 / 3)
    assert contrastive_loss(q, p, weight=3.0, energy_penalty=0.2).item() == pytest.approx(contrast, rel=1e-6)
    logits, y = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([1, 0])
    labels = (soft(-1.0) + soft(3.0)) / 2
    assert jem_loss(logits, y, q, p, weight=3.0, penalty=0.2).item() == pytest.approx(labels + contrast, rel=1e-6)
    assert calibrated(torch.tensor(9.0), energy_penalty=0.5).item() == pytest.approx(2 * math.atanh(0.995), rel=1e-5)
    js = -(soft(-0.5) + soft(1.0)) / 2 - (soft(2.0) + soft(0.25) + soft(-0.5)) / 3
    assert mutual_information(q, p, bound="jensen-shannon").item() == pytest.approx(js, rel=1e-6)
    dv = -0.25 - math.log((math.exp(2) + math.exp(0.25) + math.exp(-0.5)) / 3)
    assert mutual_information(q, p).item() == pytest.approx(dv, rel=1e-6)
    entropy = math.log(2 * math.pi * math.e) + math.log(3.0 * 0.5)
    assert scale_entropy(torch.tensor([3.0, 0.5])).item() == pytest.approx(entropy, rel=1e-6)


def test_best_states_of_members_are_kept_apart():
    net = nn.Module()
    net.a, net.b = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))
    keeper = BestState(net)
    for value, score in ((1.0, (3.0, 1.0)), (2.0, (2.0, 1.0)), (3.0, (2.5, math.nan))):
        net.a.data.fill_(value), net.b.data.fill_(value)
        keeper.update(torch.tensor(score))
    assert keeper.stale == 1
    keeper.restore()
    assert net.b.tolist() == [2.0, 1.0]
    assert net.a.tolist() == [[2.0] * 3, [1.0] * 3]


def test_a_guard_goes_back_to_a_state_that_is_old_enough():
    net, chains = nn.Linear(1, 1), torch.zeros(2)
    guard = Guard(net, every=10, extra=[chains])
    for step in range(1, 36):
        net.weight.data.fill_(step), chains.fill_(step)
        guard.passed(step)
    assert guard.roll_back() == 20  # the state of step 30 may be part of the trouble
    assert (net.weight.item(), chains.tolist(), guard.rollbacks) == (20, [20, 20], 1)
    guard.passed(40)
    assert guard.roll_back() == 20
    again = Guard(net, extra=[chains])
    again.load_state_dict(guard.state_dict())
    assert (again.rollbacks, again.roll_back()) == (2, 20)


def test_intercepts_are_taken_as_they_are():
    x = np.random.default_rng(0).normal(size=(20_000, 2))  # of which the second column stays
    z = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()

    def lost(kind, direction="high", **own):
        return ~make_missing(x, SelfMasking(kind, direction, columns=[0], **own), random_state=0)[1][:, 0]

    for kind, link in (("logistic", lambda a: 1 / (1 + np.exp(-a))), ("probit", ndtr)):
        p = link(0.5 + 1.5 * z)
        gone = lost(kind, slope=1.5, intercept=0.5)
        for part in (z < -0.5, z > 0.5):
            assert abs(gone[part].mean() - p[part].mean()) < 4.9 * np.sqrt(0.25 / part.sum())
    assert np.array_equal(lost("hard", intercept=0.5, slope=9.0), z > -0.5)
    for direction, past in (("low", z < 0.5), ("tails", np.abs(z) > 0.7), ("middle", np.abs(z) < 0.7)):
        a = {"low": 0.5, "tails": -0.7, "middle": 0.7}[direction]
        assert np.array_equal(lost("hard", direction, intercept=a), past)


def test_rejection_and_isir_say_how_they_went():
    class Step(GaussianTilt):
        """Half of the base draws weigh e⁻¹, the others 1: log Z = log((1 + e⁻¹)/2)."""

        def energy(self, u):
            return (u[:, 0] > 0).to(u)

    z = (1 + math.exp(-1)) / 2
    d = Rejection(pilot=100, chunk=500).draw(Step(), 2_000, generator=gen()).diagnostics
    assert d["proposals"] % 500 == d["log_bound"] == d["bound_raised"] == 0
    assert abs(d["acceptance"] - z) < 4.9 * math.sqrt(z * (1 - z) / d["proposals"])
    assert abs(d["log_z"] - math.log(z)) < 4.9 * d["log_z_se"]
    with pytest.raises(ValueError, match="max_proposals: expected enough for 2000 draws"):
        Rejection(pilot=100, chunk=500, max_proposals=1_500).draw(Step(), 2_000, generator=gen())
    moved = ISIR(proposals=1, n_steps=20).draw(Step(), 2_000, generator=gen())
    # With one proposal a chain moves with probability w'/(w + w'), at its own law.
    low, high = math.exp(-1), 1.0
    share = high / (low + high)  # of chains at weight 1
    rate = share * (0.5 * 0.5 + 0.5 * low / (1 + low)) + (1 - share) * (0.5 * 0.5 + 0.5 / (1 + low))
    assert moved.diagnostics["acceptance"] == pytest.approx(rate, abs=0.02)
    assert_mean((moved.latent[:, 0] < 0).double(), share)


def test_a_pool_gives_all_its_points_once():
    d = SNIS(pool=9, resampling="without_replacement").draw(GaussianTilt(), 9, generator=gen())
    assert len(d.latent.unique(dim=0)) == 9


def test_a_trajectory_is_at_least_as_long_as_asked_for():
    for step, count in ((0.1, 16), (0.5, 4), (2.0, 1), (1e-9, MOST_STEPS)):
        assert RecordedHMC.num_steps.fget(SimpleNamespace(trajectory_length=1.57, step_size=step)) == count


def test_rates_of_three_mechanisms_are_shares():
    x = np.random.default_rng(0).normal(size=(50, 3))
    for name in ("mcar_rate", "mar_rate", "mnar_rate"):
        for rate in (1.5, -0.5):
            with pytest.raises(ValueError, match=f"{name}: expected"):
                make_missing_values(x, **{name: rate})
    with pytest.raises(ValueError, match="rates: expected a sum below 1"):
        make_missing_values(x, mar_rate=1)
