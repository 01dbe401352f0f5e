"""What samplers report, by hand: temperatures, weights, swaps, acceptance, and where each becomes unreliable."""

from __future__ import annotations

import math

import pytest
import torch

from latentebm.sampling import HMC, MALA, Langevin, TemperedSMC
from latentebm.sampling.diagnostics import STUCK, stuck
from latentebm.sampling.importance.places import Places
from latentebm.sampling.importance.smc import _Particles
from latentebm.sampling.mcmc import hamiltonian
from latentebm.sampling.tempered import Mover, check_ladder
from tests.sampling_targets import GaussianTilt, gen


def test_chains_are_stuck_below_an_acceptance_or_where_a_coordinate_stands():
    still, moving = torch.randn(20, 5, 2, generator=gen()), torch.randn(20, 5, 2, generator=gen())
    still[..., 1] = torch.arange(5.0)
    for accepted, trace, found in (
        (STUCK, None, {}),
        (STUCK, moving, {}),
        (math.nextafter(STUCK, 0), moving, {"why": "the chains hardly move: acceptance 0.001", "reliable": False}),
        (0.5, still, {"why": "the chains hardly move: a coordinate stands still in all of them", "reliable": False}),
        (0.5, still[:19], {}),
    ):
        assert stuck(accepted, trace) == found
    drawn = Langevin(kernel=MALA(1e9), n_steps=8, warm_up=0, trace=3).draw(GaussianTilt(), 9, generator=gen())
    assert (drawn.diagnostics["sampler"], drawn.diagnostics["reliable"]) == ("mala", False)
    assert drawn.trace.shape == (8, 3, 2)


def test_the_report_of_hamiltonian_chains():
    rates = [{"acceptance rate": {"chain 0": a}, "divergences": {"chain 0": d}, "step_size": s} for a, d, s in
             ((0.5, [1, 4], 0.25), (0.75, [], 0.5), (0.625, [2], 1.5))]  # fmt: skip
    trace = torch.randn(50, 3, 2, generator=gen()) * torch.tensor([1.0, 3.0])
    trace[:, 0, 1] += 4
    h = torch.randn(50, 3, generator=gen(1)).cumsum(0)
    found = hamiltonian._report("hmc", trace, rates, h)
    assert (found["sampler"], found["chains"], found["divergences"], found["acceptance"]) == ("hmc", 3, 3, 0.625)
    assert (found["step_size"], "reliable" in found) == (0.75, False)
    one = [hamiltonian._report("hmc", trace[..., i : i + 1], rates, h) for i in (0, 1)]
    assert found["rhat"] == one[1]["rhat"] > one[0]["rhat"]
    for name in ("ess_bulk", "ess_tail"):
        assert found[name] == min(each[name] for each in one)
    assert found["bfmi"] == pytest.approx(float(hamiltonian.bfmi(h).min()))
    for accepted, still in ((STUCK, False), (STUCK * 0.99, True)):
        few = hamiltonian._report("hmc", trace, [rates[0] | {"acceptance rate": {"chain 0": accepted}}], h)
        assert few.get("reliable", True) is not still


def test_hamiltonian_chains_share_the_draws(monkeypatch):
    """Paths of plain numbers: of 9 draws by 4 chains each makes 3, and the draws are 9 of those 12, each once."""
    seen = []

    def chain(kernel, u, length, warm_up):
        seen.append((length, warm_up))
        path = torch.arange(length)[:, None] + 100.0 * len(seen) + torch.zeros(1, 2)
        return path, {"acceptance rate": {"chain 0": 1.0}, "divergences": {"chain 0": []}, "step_size": 1.0}, path[:, 0]

    monkeypatch.setattr(hamiltonian, "_chain", chain)
    for n, chains, length in ((9, 4, 4), (30, 4, 8), (2, 2, 4), (16, 3, 6)):
        seen.clear()
        drawn = HMC(chains=4 if n != 16 else 3, warm_up=17).draw(GaussianTilt(), n, generator=gen())
        assert seen == [(length, 17)] * chains
        assert drawn.trace.shape == (length, chains, 2)
        assert drawn.trace[:, :, 0].tolist() == [[t + 100.0 * (c + 1) for c in range(chains)] for t in range(length)]
        assert len({tuple(u) for u in drawn.latent.tolist()}) == n
        assert {tuple(u) for u in drawn.latent.tolist()} <= {tuple(u) for u in drawn.trace.flatten(0, 1).tolist()}
    assert drawn.latent.tolist() != sorted(drawn.latent.tolist())


def test_the_next_temperature_has_the_wanted_share_of_the_particles():
    sampler, energy = TemperedSMC(ess=0.4), 40 * torch.randn(200, generator=gen()).double()
    energy[::7] = math.inf
    alive = energy[energy.isfinite()]

    def share(gap):
        w = (-gap * (alive - alive.min())).exp()
        return float(w.sum() ** 2 / w.square().sum()) / len(alive)

    for beta in (0.0, 0.25):
        assert share(sampler.next_temperature(energy, beta) - beta) == pytest.approx(0.4, abs=1e-9)
    # a weak tilt goes at once, at exactly the wanted share too; and so do particles without weight
    two = torch.tensor([0.0, math.log(4.0)])  # weights 1 and ¼ from ½ to 1.5: ESS 25/34; at β = ½ less than 1
    assert TemperedSMC(ess=0.8).next_temperature(two, 0.0) < 1
    assert TemperedSMC(ess=0.7).next_temperature(two, 0.0) == 1
    assert TemperedSMC(ess=0.8).next_temperature(two, 0.5) == 1
    assert sampler.next_temperature(torch.full((3,), math.inf), 0.5) == 1
    assert (
        sampler.next_temperature(torch.tensor([0.0, 0.0, 0.0, 9.0]), 0.0)
        == 1
        > sampler.next_temperature(torch.tensor([9.0, 9.0, 9.0, 0.0]), 0.0)
    )
    for ladder in ([0, 0.5, 0.5, 1], [0, 1, 1], [0], [1], [0, 0.5], [0.5, 1], [[0, 1]], 3, ["a"]):
        with pytest.raises(ValueError, match="ladder: expected inverse temperatures"):
            check_ladder(ladder)
    step = sampler.next_temperature(torch.tensor([0.0, 1e30, 1e30]), 0.5) - 0.5
    assert 0 < step < 1e-15
    assert sampler.log_weight(torch.tensor([2.0]), 0.25, 0.75).tolist() == [-1.0]


def test_a_stage_of_particles_by_hand(monkeypatch):
    """The first stage's places are all fresh draws; a line's deviation carries on to its descendants."""
    tilt, sampler = GaussianTilt(), TemperedSMC(n_steps=3, ess=0.9)
    mover, rng = Mover(tilt, MALA(0.3), 0.5, gen(1)), gen(1)
    u, line = tilt.sample_base(40, generator=gen(2)), torch.randn(40, generator=gen(3)).double()
    energy = tilt.energy(u)
    after = sampler.next_temperature(energy, 0.0)
    now = _Particles()
    now.begin(tilt, 40, gen(2))
    assert torch.equal(now.u, u)
    assert (now.line.dtype, now.stages) == (torch.float64, [(0, 0, 0, 1, 1)])
    now.line = line
    sampler._stage(mover, now)
    went, energies, lines, stage = now.u, now.energy, now.line, now.stages[1]
    places = Places(4, u)
    places.take(u, energy, -after * energy, rng)
    weights = [-after * energy]
    for _ in range(3):
        fresh = tilt.sample_base(40, generator=rng)
        places.take(fresh, tilt.energy(fresh), -after * tilt.energy(fresh), rng)
        weights.append(-after * tilt.energy(fresh))
    w = torch.stack(weights).double().exp().mean(0)
    rows, at, e = places.resampled(generator=rng)
    assert stage.beta == after
    assert stage.log_z == pytest.approx(math.log(w.mean()), abs=1e-6)
    assert stage.ess == pytest.approx(float(w.sum() ** 2 / w.square().sum()) / 40)
    assert stage.acceptance == 1.0
    deviation = w / w.mean() - 1
    shared = 2 * float(((line - line.mean()) * deviation).mean()) / 40
    variance = float((w.square().mean() / w.mean() ** 2 - 1) / 40)
    assert stage.log_z_se == pytest.approx(math.sqrt(variance + max(0, shared)), rel=1e-5)
    torch.testing.assert_close(lines, (line + deviation)[rows], rtol=1e-5, atol=1e-6)
    assert torch.equal(went, at)
    assert torch.equal(energies, e)
