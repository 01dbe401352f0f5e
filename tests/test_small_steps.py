"""One step of each part of a sampler, by hand: swaps, slices, surrogates, reservoirs, and what is asked of others."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latentebm.models.energies import EnergyNet
from latentebm.rng import normal, uniform
from latentebm.sampling import (
    HMC,
    ISIR,
    MALA,
    NUTS,
    PCNL,
    PMC,
    SGLD,
    SNIS,
    ULA,
    Auto,
    ConditionalSampler,
    Draws,
    EllipticalSlice,
    Langevin,
    ParallelTempering,
    Rejection,
    ReplayBuffer,
    TemperedSMC,
    WeightSums,
    bracket_log_z,
    run_chains,
    tune_step,
)
from latentebm.sampling.auto import _words
from latentebm.sampling.compiled.perceptrons import build_program
from latentebm.sampling.draws import Undecoded, base_chunks
from latentebm.sampling.importance import annealed_weights, moments, places, rejection, smc, two_stage, weights
from latentebm.sampling.importance.pools import owners
from latentebm.sampling.importance.resampling import Multinomial, Systematic, _pick, make_resampler, resample
from latentebm.sampling.importance.smc import _mean, _report, _Stage
from latentebm.sampling.importance.snis import _Held
from latentebm.sampling.importance.two_stage import TwoStage
from latentebm.sampling.learned import AmortizedSampler
from latentebm.sampling.mcmc import chains, hamiltonian, moves, optim, persistent, tempering, tuning
from latentebm.sampling.mcmc import slice as slices
from latentebm.sampling.mcmc.annealed import annealed_langevin
from latentebm.sampling.mcmc.state import start_chains, start_on
from latentebm.sampling.split import draw_split
from latentebm.sampling.target import agrees, piecewise_constant
from latentebm.sampling.tempered import Mover
from latentebm.tilting.clusters.reweight import principal_scores
from tests.sampling_targets import GaussianTilt, gen

TILT = GaussianTilt()


class Counted(GaussianTilt):
    """Notes how many points its energy is asked for at once."""

    def __init__(self):
        self.asked = []

    def energy(self, u):
        self.asked.append(len(u))
        return super().energy(u)


class Walled(GaussianTilt):
    def energy(self, u):
        return torch.where(u[:, 0] > 0, math.inf, super().energy(u))


def zeros(shape, generator, like):
    return torch.zeros(shape).to(like)


def test_chance_of_zero_keeps_nothing_without_weight(monkeypatch):
    """A uniform number can be 0, whose logarithm is that of a weight of zero."""
    for module in (places, rejection, tempering, persistent):
        monkeypatch.setattr(module, "uniform", zeros)
    held = places.Places(2, torch.zeros(2, 1))
    monkeypatch.setattr(held, "groups", 1)
    held.take(torch.ones(2, 1), torch.ones(2), torch.zeros(2), gen())
    held.take(torch.full((2, 1), 2.0), torch.ones(2), torch.tensor([-math.inf, 0.0]), gen())
    assert held.u[0, :, 0].tolist() == [1, 2]
    kept, _ = rejection._thin(torch.arange(3.0)[:, None], torch.zeros(3), torch.tensor([-math.inf, -9.0, 0.0]), gen())
    assert kept[:, 0].tolist() == [1, 2]
    rows = places.ordered_systematic(torch.tensor([-math.inf, 0, 0]), torch.arange(3.0)[:, None], 2, generator=gen())
    assert rows.sort().values.tolist() == [1, 2]
    buffer = ReplayBuffer(torch.ones(5))
    moved = buffer.step(5, lambda held: held, base=lambda k, g: torch.zeros(k), restart=0.0, generator=gen())
    assert (moved.restarted, buffer.x.tolist()) == (0, [1] * 5)
    ladders = _ladders(ParallelTempering(ladder=[0, 1]), 2)
    u = [torch.zeros(2, 1), torch.ones(2, 1)]
    energy = [torch.tensor([math.inf, 0.0]), torch.zeros(2)]
    ladders._swap(0, u, energy, [torch.ones(2), torch.zeros(2)])
    assert u[1][:, 0].tolist() == [1, 0]


def test_weights_alike_and_tails_of_five():
    five = WeightSums(25)
    five.add(torch.zeros(25))
    assert (five.pareto_k, five.report()["reliable"]) == (None, True)
    one = WeightSums(25)
    one.add(torch.tensor([1.0] + [0.0] * 24))
    assert one.pareto_k is not None
    five.add(torch.empty(0))
    assert (five.count, five.log_sum) == (25, pytest.approx(math.log(25)))
    assert weights.base_chunk(None, torch.device("cuda")) == 4 * weights.BASE_DRAWS
    assert weights.base_chunk(7, torch.device("cuda")) == 7


def test_an_excess_at_the_resolution_is_a_tail(monkeypatch):
    sums = WeightSums(100)
    sums.add(torch.linspace(0, 1, 100).double())
    excess = float(sums._excess()[0])
    for alike, tail in ((excess, True), (math.nextafter(excess, 1), False)):
        monkeypatch.setattr(weights, "ALIKE", alike)
        assert (sums.pareto_k is not None) == tail
        assert sums.report()["reliable"] == (not tail or sums.pareto_k < sums.pareto_k_threshold)


def test_parts_and_rows_of_tiny_weights_are_still_chosen_by_them():
    low = torch.tensor([-2000.0, -math.inf, -2000.0]).double()
    assert owners(low.tolist(), 100, gen()).bincount().tolist()[1] == 0
    share = (owners([1e8, 1e8 + math.log(3)], 20_000, gen()) == 1).double().mean()
    assert float(share) == pytest.approx(0.75, abs=0.02)
    assert _pick(low, torch.tensor([0.1, 0.4, 0.6, 1.0]).double()).tolist() == [0, 0, 2, 2]


def test_resampling_hangs_on_its_generator_alone():
    for scheme in ("multinomial", "systematic", "residual", "without_replacement"):
        drawn = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            drawn.append(resample(torch.randn(50, generator=gen(2)), 20, resampling=scheme, generator=gen(3)))
        assert torch.equal(*drawn)


def test_grid_points_stay_within_the_ends(monkeypatch):
    monkeypatch.setattr(Systematic, "uniform", lambda self, n: torch.ones(n).double())
    assert resample(torch.zeros(3), 3, resampling="systematic", generator=gen()).sort().values.tolist() == [0, 1, 2]
    resampler = make_resampler("systematic", 3, gen())
    resampler.start(0.0)
    assert resampler._shift < 1


def test_copies_beyond_the_draws_are_left_out():
    resampler = make_resampler("residual", 4, gen())
    resampler.start(-1.0)  # as rounding may, it puts the sum of the weights too low
    for _ in range(2):
        resampler.update(torch.tensor([0.0, 0.5]).double())
    assert (resampler._filled, int(resampler.index.min())) == (4, 0)


@pytest.mark.parametrize(
    ("k", "weight", "chosen"), [(0.7, 2.0, "smc"), (0.69, 2.0, "isir"), (None, 2.0, "isir"), (0.1, 1e9, "smc")]
)
def test_where_weights_collapse_light_tails_and_fast_chains_call_for_isir(k, weight, chosen, monkeypatch):
    from latentebm.sampling import auto

    report = {"pareto_k": k, "pareto_k_threshold": 0.7, "ess": 0.001, "log_z": 0.0, "log_z_se": 0.1, "reliable": False}

    def fake(name, diagnostics):
        draws = Draws(torch.zeros(1), torch.zeros(1, 1), torch.tensor([math.log(weight)]), diagnostics)
        show = lambda track: track(draws, name)  # noqa: E731
        monkeypatch.setattr(auto, name, lambda **own: SimpleNamespace(draw=lambda *a, generator, track: show(track)))

    fake("SNIS", dict(report))
    fake("ISIR", {"sampler": "isir"})
    fake("TemperedSMC", {"sampler": "smc", "reliable": True})
    shown = []
    assert Auto().draw(TILT, 1, generator=gen(), track=noted(shown)).diagnostics["sampler"] == chosen
    assert shown == ["SNIS", {"smc": "TemperedSMC", "isir": "ISIR"}[chosen]]


def test_perceptrons_are_compiled_unless_told_not_to():
    net = EnergyNet(2)
    for compile_, compiled in ((None, build_program() is not None), (False, False)):
        form = moves.fastest(net, torch.zeros(3, 2), compile_).potential
        assert (form is not net) == compiled


def test_a_reservoir_goes_on_where_another_was():
    w, whole, rng = torch.randn(30, generator=gen(1)).double(), Multinomial(9, gen()), gen()
    for part in w.split(10):
        whole.update(part)
    first = Multinomial(9, rng)
    first.update(w[:10])
    again = Multinomial(9, rng)
    assert set(first.state_dict()) == {"n", "index", "_seen", "_log_sum"}
    again.load_state_dict(first.state_dict())
    again.update(w[10:20]), again.update(w[20:])
    assert torch.equal(again.index, whole.index)
    first, before = Multinomial(9, rng), rng.get_state()
    assert [len(t) for t in first.update(torch.full((3,), -math.inf))] == [0, 0]
    assert torch.equal(rng.get_state(), before)  # a chunk without weight leaves nothing to chance
    kept = rejection._Accepted()
    for _ in range(3):
        kept.take(torch.zeros(2, 1), torch.zeros(2), 0.0, gen())
    assert (kept.chunks, kept.count, kept.raised) == (3, 6, 1)
    held = _Held(2)
    for _ in range(3):
        held.put(torch.ones(1, 1), torch.zeros(1), torch.tensor([0]), torch.tensor([0]))
    assert held.chunks == 3


def test_every_draw_keeps_the_log_weight_it_was_drawn_by():
    """No energy is asked for twice: all points of the pool, and those of the probe that a checkpoint would need."""
    for sampler, expected in (
        (SNIS(pool=50, chunk=20), [20, 20, 10]),
        (SNIS(pool=50, chunk=30, resampling="systematic"), [30, 20, 30, 20]),
        (ISIR(proposals=3, n_steps=2, chunk=6), [5, *[6, 6, 3] * 2]),
        (Rejection(pilot=40, chunk=500), [40, 500]),
    ):
        tilt = Counted()
        drawn = sampler.draw(tilt, 5, generator=gen())
        assert [n for n in tilt.asked if n != 256] == expected
        torch.testing.assert_close(drawn.log_weight, -TILT.energy(drawn.latent))


def test_isir_step_by_step():
    tilt, rng, n, drawn = TILT, gen(4), 3, ISIR(proposals=2, n_steps=4, chunk=4).draw(TILT, 3, generator=gen(4))
    u, moved = tilt.sample_base(n, generator=rng), 0
    for _ in range(4):
        for first, rows in ((0, 2), (2, 1)):
            fresh = tilt.sample_base(rows * 2, generator=rng).view(rows, 2, 2)
            noise = torch.empty(rows, 3).exponential_(generator=rng).log()
            for i in range(rows):
                among = torch.cat([u[first + i][None], fresh[i]])
                k = int((-tilt.energy(among) - noise[i]).argmax())
                u[first + i], moved = among[k], moved + (k > 0)
    assert torch.equal(drawn.latent, u)
    assert drawn.diagnostics["acceptance"] == pytest.approx(moved / 12)


def test_a_bound_that_was_too_low_is_raised(monkeypatch):
    class Flat(GaussianTilt):
        def energy(self, u):
            return 0 * u[:, 0]

    d = Rejection(pilot=20, chunk=50).draw(Flat(), 50, generator=gen()).diagnostics
    assert (d["proposals"], d["bound_raised"], d["acceptance"]) == (50, 0, 1)
    monkeypatch.setattr(Rejection, "_pilot_bound", lambda self, tilt, generator: -1.0)
    d = Rejection(pilot=20, chunk=50).draw(Flat(), 60, generator=gen()).diagnostics
    assert (d["proposals"], d["bound_raised"], d["log_bound"]) == (100, 1, 0)


def test_moments_of_weights():
    f, base = np.array([[0.0], [1.0]]), np.log([0.8, 0.2])
    theta, mean = moments.moment_weights(f, np.array([0.7]), log_base=base + 3, tolerance=1e-7)
    assert theta[0] == pytest.approx(math.log(0.7 / 0.3) - math.log(0.2 / 0.8), abs=1e-6)
    assert mean[0] == pytest.approx(0.7, abs=1e-8)
    for wanted, least, expected in (
        (2.0, False, 30.0),
        (-1.0, False, -30.0),
        (0.1, True, 0.0),
        (0.9, True, math.log(9)),
    ):
        own = {"at_least": np.array([least])}
        assert moments.moment_weights(f, np.array([wanted]), **own)[0][0] == pytest.approx(expected, abs=1e-4)


def test_the_surrogate_is_a_ridge_regression_by_hand():
    for dim, n in ((2, 60), (2, 900)):
        u, rng = torch.randn(n, dim, generator=gen(1)), gen(2)
        energy = TILT.energy(u) + torch.sin(3 * u[:, 0])
        waves, phase = normal((dim, 256), rng, u) / math.sqrt(dim), 6.2832 * uniform((256,), rng, u)
        x = torch.randn(40, dim, generator=gen(3)) * 3

        def basis(x):
            return torch.cat([x.new_ones(len(x), 1), x, x**2, torch.cos(x @ waves + phase)], 1).double()  # noqa: B023

        def fit(a, b, ridge):
            return torch.linalg.solve(a.T @ a + ridge * len(a) * torch.eye(a.shape[1]).double(), a.T @ b)

        phi, y, held = basis(u), energy.double(), n // 4
        left = {r: phi[:held] @ fit(phi[held:], y[held:], r) - y[:held] for r in (1e-3, 1e-2, 1e-1, 1.0)}
        errors = {r: float(gap.square().mean()) for r, gap in left.items()}
        expected = basis(x) @ fit(phi, y, min(errors, key=errors.get))
        found = two_stage._surrogate(u, energy, gen(2))(x)
        torch.testing.assert_close(found.double(), expected.clamp(energy.min(), energy.max()), rtol=1e-3, atol=1e-3)


def test_two_stages_by_hand(monkeypatch):
    def cheap(u):
        return u[:, 0] / 2

    monkeypatch.setattr(two_stage, "_surrogate", lambda *_: cheap)
    names, rng = [], gen(6)
    drawn = TwoStage(decodes=90, pilot=25, pool=700, chunk=40).draw(TILT, 30, generator=gen(6), track=noted(names))
    TILT.sample_base(25, generator=rng)
    first = SNIS(pool=700, resampling="systematic").draw(Undecoded(TILT, cheap), 90, generator=rng)
    w = cheap(first.latent) - TILT.energy(first.latent)
    rows, sums, d = resample(w, 30, generator=rng), WeightSums(90), drawn.diagnostics
    sums.add(w)
    assert torch.equal(drawn.latent, first.latent[rows])
    assert d["log_z"] == pytest.approx(sums.log_z + first.diagnostics["log_z"])
    assert d["log_z_se"] == pytest.approx(math.hypot(sums.log_z_se, first.diagnostics["log_z_se"]))
    assert (d["pool"], d["decodes"], d["ess"]) == (700, 115, pytest.approx(sums.ess))
    assert (d["ess_surrogate"], d["duplicates"]) == (first.diagnostics["ess"], 1 - len(set(rows.tolist())) / 30)
    torch.testing.assert_close(drawn.log_weight, -TILT.energy(drawn.latent))
    assert names == ["pilot", "pool", "pool", "decode"]
    asked = []
    monkeypatch.setattr(two_stage, "_surrogate", lambda *_: lambda u: asked.append(len(u)) or cheap(u))
    monkeypatch.setattr(two_stage, "HELD", 200)  # numbers, of codes of two
    TwoStage(decodes=9, pilot=25, pool=250).draw(TILT, 3, generator=gen())
    assert asked[:6] == [100, 100, 50] * 2


def noted(names):
    """A track that notes what is tracked."""

    def track(items, name):
        names.append(name)
        return items

    return track


def test_the_report_of_temperatures():
    stages = [_Stage(0.0, 0.0, 0.0, 1.0, 1.0), _Stage(0.4, 2.0, 0.3, 0.6, 1.0), _Stage(1.0, 1.0, 0.4, 0.5, 0.25)]
    d = _report(stages, 0.75)
    assert d["temperatures"] == [0.0, 0.4, 1.0]
    assert (d["stage_ess"], d["stage_acceptance"], d["acceptance"]) == ([0.6, 0.5], [0.25, 0.75], 0.5)
    assert (d["log_z"], d["log_z_se"], d["sampler"]) == (3.0, pytest.approx(0.5), "smc")
    assert (d["reliable"], d["why"]) == (True, "2 temperatures, log Z known to ±0.5 nats")
    for own, moved, words in (
        ({"acceptance": 0.02}, 0.02, ""),
        ({"acceptance": 0.0199}, 0.5, "the particles hardly move: acceptance 0.0199 at one temperature"),
        ({}, 0.0, "the particles hardly move: acceptance 0 at one temperature"),
        ({"ess": 0.1}, 0.5, ""),
        ({"ess": 0.0999}, 0.5, "few particles carry a temperature's weight"),
        ({"log_z_se": 1.0}, 0.5, ""),
        ({"log_z_se": 1.001}, 0.5, "log Z is known to ±1 nats only"),
        ({"beta": 0.9}, 0.5, "the ladder ended at 0.9 of 1 after 1000 temperatures"),
    ):
        d = _report([stages[0], stages[1]._replace(log_z_se=0.0), stages[2]._replace(**own)], moved)
        assert (d["reliable"], d["why"] if words else "") == (not words, words)
    assert (_mean([]), _mean([0.5, 1.0])) == (1.0, 0.75)


def test_particles_settle_at_the_tilt(monkeypatch):
    tilt, seen = GaussianTilt(), []
    monkeypatch.setattr(TemperedSMC, "next_temperature", lambda self, energy, beta: 0.5 if beta == 0 else 1.0)
    settle = TemperedSMC._settle
    monkeypatch.setattr(TemperedSMC, "_settle", lambda self, mover, u: seen.append(len(u)) or settle(self, mover, u))
    d = TemperedSMC(particles=30, n_steps=3).draw(tilt, 10, generator=gen()).diagnostics
    assert (seen, d["temperatures"]) == ([30], [0.0, 0.5, 1.0])
    # fresh draws and three moves of them; then two times a start and three moves
    assert d["evaluations"] == 30 * 4 + 2 * 30 * 4
    assert len(d["stage_acceptance"]) == 2
    monkeypatch.setattr(smc, "MOST_STAGES", 3)
    monkeypatch.setattr(TemperedSMC, "next_temperature", lambda self, energy, beta: beta + 0.1)
    d = TemperedSMC(particles=30, n_steps=2).draw(tilt, 10, generator=gen()).diagnostics
    assert d["temperatures"] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert (seen, d["reliable"]) == ([30], False)


def test_annealed_weights_leave_the_dead_behind(monkeypatch):
    u = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [-0.5, 1.0]])
    total = annealed_weights.annealed_log_weight(Walled(), u, (0.0, 0.5, 1.0), kernel=MALA(1e-9), generator=gen(3))
    assert total.dtype == torch.float64
    assert total.tolist() == pytest.approx([-math.inf, *(-TILT.energy(u[1:])).tolist()], abs=1e-3)
    seen = []

    def noted_weights(tilt, u, rungs, **own):
        seen.append((len(u), rungs, own["kernel"].step, own["n_steps"]))
        return torch.zeros(len(u))

    monkeypatch.setattr(annealed_weights, "annealed_log_weight", noted_weights)
    bracket_log_z(TILT, chains=7, ladder=[0, 0.25, 1], n_steps=2, generator=gen())
    assert seen == [(7, (0, 0.25, 1), 0.3, 2), (7, (1, 0.25, 0), 0.3, 2)]
    seen.clear()
    bracket_log_z(TILT, chains=7, kernel=MALA(0.1), draws=u, generator=gen())
    assert [(n, step) for n, _, step, _ in seen] == [(7, 0.1), (3, 0.1)]
    assert len(seen[0][1]) == 9


def test_nothing_is_asked_of_where_annealed_chains_end(monkeypatch):
    swept = []
    sweep = Mover.sweep
    monkeypatch.setattr(Mover, "sweep", lambda self, state, beta: swept.append(beta) or sweep(self, state, beta))
    annealed_weights.annealed_log_weight(
        TILT, torch.zeros(3, 2), (0.0, 0.25, 0.5, 1.0), kernel=MALA(0.1), n_steps=2, generator=gen()
    )
    assert swept == [0.25, 0.25, 0.5, 0.5]


def _ladders(owner, n, tilt=TILT):
    return tempering._Ladders(owner, tilt, n, gen())


def test_a_round_of_swaps_by_hand(monkeypatch):
    """Chains that stay: places, energies and who came from the base distribution change by the swaps alone."""
    swept = []

    def stay(self, state, beta, steps):
        swept.append((beta, steps))
        self.acceptance.append(0.5)
        return state

    monkeypatch.setattr(Mover, "sweep", stay)
    owner = ParallelTempering(ladder=[0, 0.3, 0.6, 1], n_steps=2, warm_up=1, trace=2)
    ladders = _ladders(owner, 8)
    for t in range(4):
        if t == 1:
            ladders.begin()
            assert (ladders.swapped, ladders.tried) == ([0.0] * 3, [0] * 3)
        swept.clear()
        before, renewed = [s.position.clone() for s in ladders.states], list(ladders.renewed)
        swapped = list(ladders.swapped)
        rng = torch.Generator()
        rng.set_state(ladders.generator.get_state())
        ladders.round(t)
        assert swept == [(b, 1 if t == 0 else 2) for b in (0.3, 0.6, 1) for _ in range(2 if t == 0 else 1)]
        base = TILT.sample_base(8, generator=rng)
        at, came = [base, *before], [torch.ones(8, dtype=torch.bool), *renewed]
        for i in range(t % 2, 3, 2):
            chance = torch.rand(8, generator=rng)
            for k in range(8):
                gap = float(TILT.energy(at[i][k : k + 1]) - TILT.energy(at[i + 1][k : k + 1]))
                if chance[k] < math.exp((owner.ladder[i] - owner.ladder[i + 1]) * gap):
                    for both in (at, came):
                        low, high = both[i][k].clone(), both[i + 1][k].clone()
                        both[i] = both[i].clone().index_put((torch.tensor(k),), high)
                        both[i + 1] = both[i + 1].clone().index_put((torch.tensor(k),), low)
                    swapped[i] += 1 / 8
        for state, place, flag, found in zip(ladders.states, at[1:], came[1:], ladders.renewed, strict=True):
            assert torch.equal(state.position, place)
            assert torch.equal(flag, found.bool())
        assert ladders.swapped == pytest.approx(swapped)
        assert len(ladders.path) == max(0, t)
    assert torch.equal(ladders.path[-1], ladders.states[-1].position[:2])
    assert ladders.tried == [1, 2, 1]
    d = ladders.report()
    assert d["swap_acceptance"] == pytest.approx([s / t for s, t in zip(ladders.swapped, (1, 2, 1), strict=True)])
    assert (d["acceptance"], d["ladder"]) == (0.5, [0, 0.3, 0.6, 1])
    assert d["renewed"] == float(ladders.renewed[-1].double().mean())
    assert (d["evaluations"], d["sampler"]) == (sum(m.evaluations for m in ladders.movers), "pt")


def test_tempered_chains_are_believed_by_their_swaps_and_moves():
    ladders = _ladders(ParallelTempering(ladder=[0, 0.5, 1]), 20)
    assert ladders.report()["swap_acceptance"] == [0, 0]
    for accepted, share, words in (
        ((0.02, 0.5), 19, "95% of the draws climbed from the base distribution"),
        ((0.0199, 0.5), 20, "the chains hardly move: acceptance 0.0199 at one temperature"),
        ((0.5, 0.5), 18, "only 90% of the draws came from the base distribution"),
    ):
        for mover, rate in zip(ladders.movers, accepted, strict=True):
            mover.acceptance = [rate]
        ladders.renewed[-1] = torch.arange(20) < share
        d = ladders.report()
        assert (d["reliable"], d["why"], d["acceptance"]) == (words.startswith("95"), words, accepted[-1])


def test_steps_are_tuned_in_the_warm_up_and_then_stay():
    for warm_up, tuned in ((6, True), (0, False)):
        owner = ParallelTempering(ladder=[0, 0.5, 1], warm_up=warm_up, rounds=3, kernel=MALA(1e-3))
        ladders = _ladders(owner, 20)
        for t in range(warm_up):
            ladders.round(t)
        ladders.begin()
        steps = [mover.kernel.step for mover in ladders.movers]
        assert [step > 1e-3 for step in steps] == [tuned] * 2
        ladders.round(warm_up)
        assert [mover.kernel.step for mover in ladders.movers] == steps
    names = []
    drawn = ParallelTempering(ladder=[0, 0.5, 1], warm_up=2, rounds=9, trace=5).draw(
        TILT, 7, generator=gen(), track=noted(names)
    )
    assert (names, drawn.trace.shape) == (["tempering"], (9, 5, 2))
    assert drawn.diagnostics["rhat"] == tempering.max_rhat(drawn.trace[4:])
    alone = ParallelTempering(ladder=[0, 1], warm_up=0, rounds=2, trace=0).draw(TILT, 7, generator=gen())
    assert (alone.trace, alone.diagnostics["rhat"]) == (None, None)


def test_a_ladder_is_chosen_by_a_few_particles(monkeypatch):
    asked = []

    class Pilot:
        def __init__(self, **own):
            asked.append(own)

        def draw(self, tilt, n, *, generator):
            return SimpleNamespace(diagnostics={"temperatures": [0.0, 0.2, 1.0]})

    monkeypatch.setattr(tempering, "TemperedSMC", Pilot)
    kernel = MALA(0.2)
    assert ParallelTempering(kernel=kernel, target=0.4).rungs(TILT, gen()) == (0.0, 0.2, 1.0)
    assert asked == [{"particles": 256, "kernel": kernel, "n_steps": 5, "target": 0.4}]


@pytest.mark.parametrize("shrinks", [1, 100])
def test_slices_by_hand(shrinks, monkeypatch):
    monkeypatch.setattr(slices, "SHRINKS", shrinks)
    start, tilt = torch.randn(5, 2, generator=gen(1)), Walled()
    start[:, 0] = -start[:, 0].abs()
    run = run_chains(tilt, start, EllipticalSlice(), 1, generator=gen(2), trace=5)
    rng = gen(2)
    fresh, level = normal((1, 5, 2), rng, start)[0], uniform((1, 5), rng, start)[0]
    bound = tilt.energy(start) - level.log()
    angle = 2 * math.pi * uniform((5,), rng, start)
    low, high, x, alive = angle - 2 * math.pi, angle.clone(), start.clone(), list(range(5))
    for _ in range(shrinks):
        for i in list(alive):
            y = start[i] * angle[i].cos() + fresh[i] * angle[i].sin()
            if tilt.energy(y[None])[0] <= bound[i]:
                x[i] = y
                alive.remove(i)
            elif angle[i] < 0:
                low[i] = angle[i]
            else:
                high[i] = angle[i]
        if not alive:
            break
        for i, chance in zip(alive, uniform((len(alive),), rng, start), strict=True):
            angle[i] = low[i] + (high[i] - low[i]) * chance
    torch.testing.assert_close(run.state.position, x)
    torch.testing.assert_close(run.trace[0], x)
    info = run.info
    assert (info.reverted, info.acceptance, info.step_size) == (len(alive), pytest.approx(1 - len(alive) / 5), 1.0)
    assert (shrinks == 1) == bool(alive)
    torch.testing.assert_close(run.state.energy, tilt.energy(x))
    # rounding may put the level at the present energy itself, which is within its slice
    flat = run_chains(Huge(), torch.zeros(50, 2), EllipticalSlice(), 1, generator=gen(2))
    assert flat.info.reverted == 0


class Huge(GaussianTilt):
    def energy(self, u):
        return 0 * u[:, 0] + 1e9


def test_blocks_and_chunks_choose_their_program(monkeypatch):
    """Whole blocks of whole chunks go to the fast program, odd ones to the plain steps."""
    seen = []

    def named(name):
        def move(*moving):
            seen.append((name, len(moving[2]), len(moving[1][0])))
            return moves.move_block(*moving)

        return move

    monkeypatch.setattr(chains, "fastest", lambda target, *_: moves.Fastest(target, named("fast"), named("odd")))
    run_chains(TILT, torch.zeros(5, 2), MALA(0.1), 9, generator=gen(), chunk=2)
    assert seen == [("fast", 8, 2), ("fast", 8, 2), ("odd", 8, 1), ("odd", 1, 2), ("odd", 1, 2), ("odd", 1, 1)]
    seen.clear()
    run_chains(TILT, torch.zeros(4, 2), MALA(0.1), 8, generator=gen(), chunk=2)
    run_chains(TILT, torch.zeros(4, 2), MALA(0.1), 8, generator=gen(), chunk=9)
    assert seen == [("fast", 8, 2), ("fast", 8, 2), ("fast", 8, 4)]


def test_one_step_needs_no_checkpoint_and_reports_its_own_scale(monkeypatch):
    asked, own = [], chains.fit_checkpoint
    monkeypatch.setattr(chains, "fit_checkpoint", lambda *a: asked.append(a[0]) or own(*a))
    kernel = SGLD(a=1.0, b=1.0, gamma=1.0)
    for n in (1, 2):
        info = run_chains(TILT, torch.zeros(2, 2), kernel, n, generator=gen()).info
        assert info.step_size == kernel.scales(n - 1)[0]
        assert len(asked) == n - 1
    walk = chains._Walk(start_chains(lambda x: x.sum(1), torch.zeros(2, 1)), 0)
    walk.add(walk.state, [(torch.ones(3), torch.empty(0))])
    walk.add(walk.state, [(torch.ones(3), torch.empty(0))] * 2)
    assert (walk.blocks, walk.counts.tolist()) == (2, [3, 3, 3])
    for bad in (torch.zeros(4), torch.tensor(0.0), torch.zeros(0, 2)):
        with pytest.raises(ValueError, match="position: expected shape"):
            run_chains(TILT, bad, kernel, 1, generator=gen())
    tilt = Counted()
    start_on(tilt, torch.zeros(5, 2), generator=gen(), chunk=2)
    assert tilt.asked[:4] == [2, 2, 2, 1]


def test_compiled_steps_are_the_same_steps(monkeypatch):
    x, grad, noise = (torch.randn(3, 2, generator=gen(k)) for k in range(3))
    plain = moves.langevin_update(x, grad, noise.clone(), 0.3, 0.7, torch.tensor([2.0, 0.5]))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(moves.langevin_update(x, grad, noise, 0.3, 0.7, torch.tensor([2.0, 0.5])), plain)
    assert moves._keepable(torch.tensor([0.0, math.inf]), torch.zeros(2, 1)).tolist() == [True, False]


def test_a_gpu_program_moves_what_it_knows():
    program = SimpleNamespace(
        move=lambda point, noise, uniform, table, trace: ("own", table.tolist()),
        value_and_grad=lambda x: (x.square().sum(1) / 2, x),
    )
    x = torch.ones(2, 1)
    point, scales = (x, torch.zeros(2), x), [(0.5, 1.0)]
    assert moves._call_gpu(program, point, torch.zeros(1, 2, 1), None, scales, None, None, 0) == ("own", [[0.5, 1.0]])
    for p, clip in ((torch.ones(1), None), (None, 9.0), (torch.ones(1), 9.0)):
        moved = moves._call_gpu(program, point, torch.zeros(1, 2, 1), None, scales, p, clip, 0)
        assert moved[0][0].tolist() == [[0.5], [0.5]]


def test_why_there_is_no_compiler(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    monkeypatch.setattr(InvalidCxxCompiler, "__str__", lambda self: "\n first line\nsecond")
    moves.why_not_compiled.cache_clear()
    assert moves.why_not_compiled() == "first line"
    moves.why_not_compiled.cache_clear()


def test_hamiltonian_kernels_get_their_settings():
    def potential(site):
        return site["u"].square().sum() / 2

    nuts = NUTS(target=0.7, max_tree_depth=3).kernel(potential)
    hmc = HMC(target=0.6, trajectory=0.9).kernel(potential)
    assert (nuts._max_tree_depth, nuts._adapter.target_accept_prob) == (3, 0.7)
    assert (hmc.trajectory_length, hmc._adapter.target_accept_prob) == (0.9, 0.6)
    assert nuts.potential_fn is hmc.potential_fn is potential
    torch.manual_seed(0)
    path, report, h = hamiltonian._chain(hmc, torch.ones(2), 6, 4)
    assert path.shape == (6, 2)
    assert len(h) == 6
    assert (h > 0).all()  # both energies of N(0, I) are positive
    assert report["step_size"] == float(hmc.step_size)
    assert "acceptance rate" in report
    with pytest.raises(FloatingPointError, match="bound it from below"):
        hamiltonian._bounded(torch.tensor(-math.inf))


def test_annealed_chains_step_by_the_square_of_their_level():
    def potential(x, s):
        return x.square().sum(1) / (2 * s**2)

    for adjusted, kernel in ((False, ULA), (True, MALA)):
        own = {"n_steps": 3, "step": 0.2, "adjusted": adjusted, "generator": gen()}
        found = annealed_langevin(potential, torch.ones(4, 2), [2.0, 0.5], **own)
        rng, x = gen(), torch.ones(4, 2)
        for level in (2.0, 0.5):
            form = lambda x, s=level: x.square().sum(1) / (2 * s**2)  # noqa: E731
            x = run_chains(form, x, kernel(0.2 * level**2), 3, generator=rng).state.position
        torch.testing.assert_close(found, x)
    for bad in ([1.0, 0.0], [1.0, 1.0], [], [[1.0]], [0.5, 1.0]):
        with pytest.raises(ValueError, match="sigmas: expected"):
            annealed_langevin(potential, torch.ones(4, 2), bad, n_steps=1, generator=gen())


def test_parameters_step_from_the_first_scale_on(monkeypatch):
    theta = torch.nn.Parameter(torch.tensor([4.0]))
    optimizer = optim.SGLD([theta], a=1.0, b=1.0, gamma=1.0, temperature=0.0, generator=gen())

    def closure():
        optimizer.zero_grad()
        loss = theta.square().sum() / 2
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 8.0
    assert theta.item() == pytest.approx(4 - 4 / 2)
    optimizer.step(closure)
    assert theta.item() == pytest.approx(2 - 2 / 4)
    called = []
    monkeypatch.setattr(optim, "langevin_update_foreach", lambda *a: called.append("foreach"))
    monkeypatch.setattr(optim, "langevin_update", lambda p, *a: called.append("one") or p)
    for foreach, name in ((None, "one"), (False, "one"), (True, "foreach")):
        other = optim.SGLD([theta], generator=gen(), foreach=foreach)
        other.step()
        assert called.pop() == name


def test_what_chains_ask_of_others(monkeypatch):
    seen, own = [], chains.run_chains

    def noted_run(*args, **more):
        seen.append(more)
        return own(*args, **more)

    for module in ("tempered", "classifier"):
        monkeypatch.setattr(f"latentebm.sampling.{module}.run_chains", noted_run)
    mover = Mover(TILT, MALA(0.3), None, gen())
    state = mover.start(torch.zeros(3, 2), 0.5)
    state = mover.start(torch.zeros(3, 2), 0.5)
    assert (state.step, mover.evaluations) == (0, 6)
    mover.sweep(state, 0.5, 2)
    assert seen.pop()["compile"] is False
    sampler = ConditionalSampler(lambda x: x, lambda n, g: torch.randn(n, 2, generator=g), classes=2)
    sampler.sample(7, ULA(0.1), 1, generator=gen())
    assert seen.pop()["chunk"] == 7
    monkeypatch.setattr(tuning, "fastest", lambda *a: seen.append(a[2]) or moves.Fastest(a[0], None, None))
    for compile_, passed in ((True, None), (False, False), (None, None)):
        tune_step(TILT, torch.zeros(3, 2), MALA(0.1), 1, generator=gen(), compile=compile_)
        assert seen.pop() is passed


def test_a_persistent_chain_starts_again_as_often_as_asked():
    counted = []

    def base(n, g):
        counted.append(n)
        return torch.randn(n, 2, generator=g)

    sampler = ConditionalSampler(lambda x: x, base, classes=2)
    pmc = PMC(ULA(0.1), n_steps=1, size=10, restart=1.0)
    pmc.sample(sampler, 6, generator=gen())
    assert counted == [10, 6]
    assert pmc.buffer.y.tolist() == [0, 1] * 5
    with pytest.raises(ValueError, match=r"x: expected .* \(2,\) of torch.int64"):
        ReplayBuffer(torch.zeros(2).long())
    with pytest.raises(ValueError, match=r"x: expected .* got list"):
        ReplayBuffer([1.0])


def test_the_bounds_of_a_flat_energy_and_of_agreement():
    class Ramp:
        """Slopes of exactly a hundredth of what counts as different, over a flat base."""

        def __init__(self, slope, wide=1e9):
            self.slope, self.wide = slope, wide

        def sample_base(self, n, *, generator):
            return self.wide * torch.rand(n, 1, generator=generator).double()

        def log_base(self, u):
            return 0 * u[:, 0]

        def energy(self, u):
            return self.slope * u[:, 0]

        potential = energy

    u = torch.linspace(0, 1e9, 9).double()[:, None]
    assert piecewise_constant(Ramp(0.99e-5), u)
    assert piecewise_constant(Ramp(0.99e-5), u - 5e8)
    assert not piecewise_constant(Ramp(1e-5), u)
    for slope, refused in ((0.99e-5, True), (1e-5, False)):
        kernel, tilt = PCNL(0.5), Ramp(slope)
        tilt.log_base = lambda u: -0.5 * (u.square() + math.log(2 * math.pi)).sum(1)
        x = torch.linspace(-200, 200, 9).double()[:, None]
        if refused:
            with pytest.raises(ValueError, match="energy: expected a differentiable one for PCNL"):
                kernel.sees(tilt, x)
        else:
            kernel.sees(tilt, x)
    for off, alike in ((0.5e-3, True), (1.5e-3, False)):
        forms = [lambda x, k=k: 1e4 * (1 + k) + 0 * x[:, 0] for k in (0, off)]
        assert agrees(*forms, torch.zeros(3, 1)) == alike
        near = [lambda x, k=k: k + 0 * x[:, 0] for k in (0, off)]
        assert agrees(*near, torch.zeros(3, 1)) == alike


def test_an_amortized_draw_and_words_of_weights():
    source = SimpleNamespace(sample=lambda n, generator: torch.ones(n, 2))
    drawn = AmortizedSampler(source).draw(TILT, 3, generator=gen())
    torch.testing.assert_close(drawn.log_weight, -TILT.energy(torch.ones(3, 2)))
    expected = float(TILT.energy(torch.ones(1, 2)) - TILT.log_base(torch.ones(1, 2)))
    assert drawn.diagnostics["mean_potential"] == pytest.approx(expected)
    assert _words({"pareto_k": None, "ess": 0.5}) == "effective sample size 50 %, Pareto k̂ –"
    assert _words({"pareto_k": 0.123, "ess": 0.0123}) == "effective sample size 1.2 %, Pareto k̂ 0.12"
    auto = Auto(proposals=3, n_steps=2)
    assert auto._left(math.log(5)) == pytest.approx((1 - 3 / (10 + 2)) ** 2)
    assert (auto._left(-9.0), auto._left(1e5)) == (0.0, 1.0)
    draws = Draws(torch.zeros(2, 1), torch.zeros(2, 3), torch.zeros(2), {"ess": 0.5, "no": [1]}, torch.zeros(6, 5, 3))
    tree = draws.to_arviz()
    assert dict(tree.posterior.sizes) == {"chain": 5, "draw": 6, "u_dim_0": 3}
    assert tree.attrs["ess"] == 0.5


def test_chunks_of_base_draws():
    parts = list(base_chunks(TILT, 10, 4, generator=gen(), first=1, track=noted(names := [])))
    assert [len(u) for u, _ in parts] == [4, 2]
    assert names == ["pool"]


@pytest.mark.parametrize(
    ("sampler", "names"),
    [
        (SNIS(pool=50), ["pool"]),
        (SNIS(pool=50, resampling="residual"), ["pool", "pool"]),
        (ISIR(n_steps=2), ["i-SIR"]),
        (Rejection(pilot=40), ["proposals"]),
        (PMC(MALA(0.5), n_steps=2, size=9), ["chains"]),
        (TemperedSMC(particles=20), ["temperatures"]),
        (Langevin(n_steps=2, warm_up=0), ["chains"]),
        (HMC(chains=1, warm_up=1), ["hmc"]),
        (Auto(pool=400), ["pool"]),
    ],
)
def test_progress_is_shown_alone_and_in_a_group(sampler, names):
    for draw in (sampler.draw, lambda *a, **own: draw_split(sampler, *a, **own)):
        found = []
        drawn = draw(TILT, 4, generator=gen(), track=noted(found))
        assert found == names
        assert len(drawn) == 4


def test_scores_do_not_hang_on_the_unit_of_the_images():
    x = torch.randn(30, 1, 2, 3, generator=gen())
    first = principal_scores(x, x[:4], generator=gen(1))
    for unit in (1e-4, 1e4):
        for a, b in zip(first, principal_scores(unit * x, unit * x[:4], generator=gen(1)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert float(first[0][:, 0].std()) == pytest.approx(1, rel=1e-5)
