"""Samplers for tilts whose weights collapse: tempered particles, ladders of chains, and the choice among them."""

import math

import pytest
import torch

from latentebm.adapters.from_module import WrappedModel
from latentebm.choices import KNOWN
from latentebm.models.tilts import LatentTilt
from latentebm.registry import restored, stored
from latentebm.report.words import reliability
from latentebm.sampling import (
    MALA,
    PCN,
    PCNL,
    SNIS,
    ULA,
    Auto,
    EllipticalSlice,
    Langevin,
    ParallelTempering,
    RandomWalk,
    TemperedSMC,
    bracket_log_z,
)
from latentebm.sampling.importance.annealed_weights import annealed_log_weight
from latentebm.sampling.importance.places import Places, ordered_systematic
from latentebm.sampling.named import named_sampler
from tests.sampling_targets import GaussianTilt, MixtureTilt, assert_mean, gen

CENTRE = 4.05  # modes eight standard deviations apart: P(z > 0) = .7 to 1e-15, log Z = 0


class Stretched(MixtureTilt):
    """.3 N(−4.05, .5²) + .7 N(4.05, .5²) as a tilt of N(0, 1): ESS .0097 %; it counts the energies asked for."""

    def __init__(self):
        super().__init__(centre=CENTRE)
        self.evaluations = 0

    def energy(self, u):
        self.evaluations += len(u)
        return super().energy(u)


def relative_ess(centre, sd, weight=0.7):
    """Closed form 1 / ∫p²/p0 of the mixture, its modes' product left out."""
    one = math.exp(centre**2 / (2 - sd**2)) / (sd * math.sqrt(2 - sd**2))
    return 1 / ((weight**2 + (1 - weight) ** 2) * one)


def check_stretched(sampler, seed=0, n=1_000, share=0.02):
    """Mode share within .02, log Z within .05 and 4.9 standard errors, the modes' own means and variances."""
    draws = sampler.draw(Stretched(), n, generator=gen(seed))
    x, d = draws.latent[:, 0], draws.diagnostics
    assert abs((x > 0).double().mean().item() - 0.7) < share
    if "log_z" in d:
        assert abs(d["log_z"]) < 0.05
        assert abs(d["log_z"]) < 4.9 * d["log_z_se"]
    inner = x.abs() - CENTRE
    assert_mean(inner, 0.0)
    assert_mean(inner.square(), 0.25)
    assert d["reliable"]
    return d


def test_the_stretched_tilt_has_collapsed():
    assert relative_ess(2.0, 0.5) == pytest.approx(0.116, abs=1e-3)
    assert relative_ess(CENTRE, 0.5) == pytest.approx(1e-4, rel=0.05)
    assert not SNIS(pool=100_000).draw(Stretched(), 100, generator=gen()).diagnostics["reliable"]


def test_smc_draws_the_stretched_mixture():
    d = check_stretched(TemperedSMC())
    ladder = d["temperatures"]
    assert (ladder[0], ladder[-1]) == (0.0, 1.0)
    assert ladder == sorted(set(ladder))
    assert len(d["stage_ess"]) == len(d["stage_acceptance"]) == len(ladder) - 1
    assert min(d["stage_ess"]) > 0.5


def errors(sampler, seeds=12):
    """Log Z, its standard error, and the mode share of several runs; energies asked for per run."""
    tilt, rows = Stretched(), []
    for seed in range(seeds):
        draws = sampler.draw(tilt, 1_000, generator=gen(seed))
        d = draws.diagnostics
        rows.append([d["log_z"], d["log_z_se"], (draws.latent > 0).double().mean().item() - 0.7])
    return torch.tensor(rows, dtype=torch.float64), tilt.evaluations / seeds


def test_smc_costs_a_tenth_of_snis_and_knows_its_error():
    found, cost = errors(TemperedSMC())
    log_z, se, share = found.T
    effective = 0.7 * 0.3 / share.square().mean().item()  # independent draws with the same error of the share
    assert cost / effective < 0.1 / relative_ess(CENTRE, 0.5)
    assert share.square().mean().sqrt().item() < 0.02
    assert 0.6 < (log_z / se).square().mean().sqrt().item() < 1.5
    d = TemperedSMC(particles=4_000).draw(tilt := Stretched(), 5, generator=gen()).diagnostics
    assert d["evaluations"] == pytest.approx(tilt.evaluations, rel=0.1)


class Kept(TemperedSMC):
    """Weights that are not reset after resampling: those of all temperatures so far count again."""

    def log_weight(self, energy, beta, after):
        return -after * energy


class Skipped(TemperedSMC):
    """A temperature that is passed without being weighed."""

    def log_weight(self, energy, beta, after):
        return torch.zeros_like(energy) if 0.1 < beta < 0.25 else super().log_weight(energy, beta, after)


@pytest.mark.parametrize("fault", [Kept(), Skipped()], ids=repr)
def test_planted_faults_of_smc_are_seen(fault):
    with pytest.raises(AssertionError):
        check_stretched(fault)


@pytest.mark.parametrize("kernel", [MALA(0.3), PCN(0.3), PCNL(0.3), EllipticalSlice(), RandomWalk(0.5)], ids=repr)
def test_smc_gaussian(kernel):
    tilt = GaussianTilt()
    draws = TemperedSMC(kernel=kernel, ess=0.9).draw(tilt, 4_000, generator=gen(1))
    assert len(draws.diagnostics["temperatures"]) > 2
    assert abs(draws.diagnostics["log_z"] - tilt.log_z) < 4.9 * draws.diagnostics["log_z_se"]
    assert_mean(draws.latent, tilt.mean)
    assert_mean((draws.latent - tilt.mean).square(), tilt.covariance.diag())
    assert_mean(draws.latent[:500], tilt.mean)  # a prefix is a fair sample
    torch.testing.assert_close(draws.x, 2 * draws.latent)
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent))


class High(GaussianTilt):
    """N(0, I) of 1,000 dimensions, every coordinate tilted to N(1/11, 1/1.1): log Z in closed form."""

    dim = 1_000
    log_z = 500 * (0.01 / 1.1 - math.log(1.1))

    def energy(self, u):
        return (0.05 * u.square() - 0.1 * u).sum(1)


def test_smc_in_many_dimensions():
    draws = TemperedSMC(particles=200, kernel=PCNL(0.3), n_steps=4).draw(tilt := High(), 200, generator=gen(2))
    d = draws.diagnostics
    assert d["reliable"]
    assert abs(d["log_z"] - tilt.log_z) < 4.9 * d["log_z_se"]
    assert draws.latent.mean().item() == pytest.approx(1 / 11, abs=0.01)
    assert draws.latent.var().item() == pytest.approx(1 / 1.1, rel=0.01)


def test_ordered_resampling_keeps_the_weights():
    log_weight, u = 2 * torch.randn(60, generator=gen(3)).double(), torch.randn(60, 3, generator=gen(4))
    counts = torch.stack(
        [ordered_systematic(log_weight, u, 60, generator=gen(k)).bincount(minlength=60) for k in range(400)]
    )
    share = log_weight.softmax(0) * 60
    assert bool(((counts - share).abs() < 1 + 1e-9).all())
    assert bool(((counts.double().mean(0) - share).abs() < 4.9 * (0.5 / 20)).all())


def test_memory_does_not_grow_with_the_steps():
    few, many = (Places(size, torch.zeros(600, 4_096)) for size in (10, 10_000))
    assert few.u.shape == many.u.shape == (3, 600, 4_096)
    assert Places(50, torch.zeros(3_000, 4_096)).u.shape == (1, 3_000, 4_096)
    log_weight = torch.tensor([0.0, 1.0, 2.0])
    held = Places(3, torch.zeros(2_000, 4_200))  # one seat for three places: taken in proportion to weights
    for k in range(3):
        held.take(torch.full_like(held.u[0], k), torch.full((2_000,), float(k)), log_weight[k].expand(2_000), gen(k))
    assert_mean((held.energy[0] == 2).double(), log_weight.softmax(0)[2].item())
    torch.testing.assert_close(held.log_mean(), (log_weight.logsumexp(0) - math.log(3)).double().expand(2_000))


def test_parallel_tempering_mode_masses():
    d = check_stretched(ParallelTempering(trace=0), seed=2, n=400, share=4.9 * math.sqrt(0.21 / 400))
    assert min(d["swap_acceptance"]) > 0.2
    x = ParallelTempering(ladder=[0, 0.3, 1.0]).draw(tilt := MixtureTilt(), 2_000, generator=gen(6))
    assert_mean((x.latent > 0).double()[:, 0], tilt.positive)
    assert x.trace.shape == (200, 64, 1)
    stuck = Langevin(n_steps=100).draw(Stretched(), 400, generator=gen(2)).latent
    assert abs((stuck > 0).double().mean().item() - 0.7) > 0.1  # plain chains never cross


class Wrong(ParallelTempering):
    """Swaps tested by the whole tilt, as if both temperatures were 0 and 1."""

    def log_swap(self, beta, energy):
        return super().log_swap((0.0, 1.0), energy)


def test_a_wrong_swap_is_seen():
    tilt, own = GaussianTilt(), {"ladder": [0, 0.5, 1.0], "kernel": MALA(0.01), "warm_up": 0, "trace": 0}
    for sampler in (ParallelTempering(rounds=60, **own), Wrong(rounds=60, **own)):  # whose moves mend little
        draws = sampler.draw(tilt, 4_000, generator=gen(7)).latent
        if isinstance(sampler, Wrong):
            with pytest.raises(AssertionError):
                assert_mean((draws - tilt.mean).square(), tilt.covariance.diag())
        else:
            assert_mean((draws - tilt.mean).square(), tilt.covariance.diag())
            assert_mean(draws, tilt.mean)


def exact_draws(tilt, n):
    return tilt.mean + torch.randn(n, 2, generator=gen(8)) @ torch.linalg.cholesky(tilt.covariance).T


def test_the_bracket_holds_log_z():
    for tilt, draws in (
        (GaussianTilt(), exact_draws(GaussianTilt(), 1_000)),
        (GaussianTilt(), None),
        (Stretched(), None),
    ):
        for seed in range(2):
            b = bracket_log_z(tilt, draws=draws, generator=gen(seed))
            assert b.lower < tilt.log_z < b.upper
            assert b.upper - b.lower < 0.45
            assert b.lower < b.forward
            assert b.backward < b.upper
    given = bracket_log_z(tilt, ladder=[0, 0.02, 0.1, 0.3, 1], kernel=PCN(0.4), n_steps=2, generator=gen())
    assert given.lower < 0 < given.upper
    assert given.upper - given.lower > b.upper - b.lower  # a coarse ladder knows less


def test_annealed_weights_are_unbiased_both_ways():
    tilt, ladder, own = GaussianTilt(), [0, 0.2, 0.5, 1.0], {"kernel": MALA(0.4), "generator": gen(9)}
    forward = annealed_log_weight(tilt, torch.randn(40_000, 2, generator=gen(10)), ladder, **own)
    backward = annealed_log_weight(tilt, exact_draws(tilt, 40_000), ladder[::-1], **own)
    assert_mean(forward.exp(), math.exp(tilt.log_z))
    assert_mean((-backward).exp(), math.exp(-tilt.log_z))
    assert_mean_differs = pytest.raises(AssertionError)
    with assert_mean_differs:  # a temperature skipped
        assert_mean(
            annealed_log_weight(tilt, torch.randn(40_000, 2, generator=gen(10)), ladder[1:], **own).exp(),
            math.exp(tilt.log_z),
        )


def test_auto_takes_what_the_weights_call_for():
    healthy = Auto().draw(GaussianTilt(), 500, generator=gen())
    assert (healthy.diagnostics["sampler"], healthy.diagnostics["reliable"]) == ("snis", True)
    assert "importance weights are healthy" in healthy.diagnostics["why"]

    class Rare(GaussianTilt):
        """A flat tilt of .6 % of the base draws: weights below 1 % effective, but bounded."""

        def energy(self, u):
            return torch.where(u[:, 0] > 2.5, -7.0, 0.0)

    rare = Auto().draw(Rare(), 400, generator=gen(1))
    lifted = math.exp(7) * 0.0062097
    assert (rare.diagnostics["sampler"], rare.diagnostics["reliable"]) == ("isir", True)
    assert_mean((rare.latent[:, 0] > 2.5).double(), lifted / (lifted + 1 - 0.0062097))
    assert rare.diagnostics["ess"] < 0.01
    assert "i-SIR chains arrive" in rare.diagnostics["why"]
    d = check_stretched(Auto(), seed=1)
    assert (d["sampler"], d["ess"] < 0.01) == ("smc", True)
    assert "importance weights collapsed" in d["why"]

    class Steps(GaussianTilt):
        def energy(self, u):
            return 9.0 * (u.sum(1) < 6).to(u)

    steps = Auto(particles=300).draw(Steps(), 300, generator=gen(2)).diagnostics
    assert steps["sampler"] == "smc"
    assert named_sampler("auto", pool=7, steps=1, n=1) == Auto(pool=7)
    for sampler in (
        Auto(pool=9),
        TemperedSMC(kernel=PCN(0.2)),
        ParallelTempering(),
        Langevin(kernel=EllipticalSlice()),
    ):
        assert restored("sampler", stored(sampler), KNOWN) == sampler  # as a run folder holds it


class Energy(torch.nn.Module):
    """The stretched mixture as the energy of a code."""

    def forward(self, u):
        return Stretched().energy(u)


def test_a_collapsed_tilt_is_rescued():
    tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), Energy())
    collapsed = SNIS(pool=20_000).draw(tilt, 50, generator=gen()).diagnostics
    assert not collapsed["reliable"]
    draws = named_sampler("auto", pool=20_000, steps=1, n=500).draw(tilt, 500, generator=gen(4))
    assert_mean((draws.x > 0).double(), 0.7)
    said = reliability({"tilted": {**collapsed, **draws.diagnostics}})
    assert said.startswith("Importance weights collapsed (effective sample size 0.0")
    assert said.endswith("nats.")
    assert draws.diagnostics["reliable"]


def test_particles_that_stand_still_are_unreliable():
    class Wild(GaussianTilt):
        def energy(self, u):
            return 1e6 * (u * 1e4).sin().sum(1).abs() + 40 * (u - 3).square().sum(1)

    d = TemperedSMC(kernel=RandomWalk(1e6), n_steps=2).draw(Stretched(), 50, generator=gen()).diagnostics
    assert d["reliable"] is False
    assert "hardly move" in d["why"]
    d = (
        ParallelTempering(ladder=[0, 0.01, 1], kernel=RandomWalk(1e9), warm_up=0, rounds=5)
        .draw(Stretched(), 50, generator=gen())
        .diagnostics
    )
    assert d["reliable"] is False
    assert "hardly move" in d["why"]
    assert "from the base distribution" in d["why"]
    d = TemperedSMC(n_steps=2).draw(Wild(), 50, generator=gen()).diagnostics
    assert d["reliable"] is False


def constant(value):
    class Constant(GaussianTilt):
        def energy(self, u):
            return torch.full((len(u),), value) + 0 * u.sum(1)

    return Constant()


SAMPLERS = [TemperedSMC(particles=50, n_steps=2), ParallelTempering(ladder=[0, 0.5, 1], rounds=3, warm_up=1)]
SAMPLERS += [ParallelTempering(rounds=3), Auto(pool=100)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_every_sampler_checks_its_target(sampler):
    class Column(GaussianTilt):
        def energy(self, u):
            return super().energy(u)[:, None]

    class Counted(GaussianTilt):
        def energy(self, u):
            return (u[:, 0] > 0).long()

    class Whole(GaussianTilt):
        def sample_base(self, n, *, generator):
            return torch.randint(3, (n, 2), generator=generator)

    tilts = [(Column(), "energy: expected shape"), (Counted(), "expected .*floating"), (Whole(), "expected .*floating")]
    tilts += [(constant(math.nan), "(NaN|nan)"), (constant(-math.inf), "(below infinity|finite)")]
    tilts += [(constant(math.inf), "(weight above zero|finite)")]
    for tilt, message in tilts:
        with pytest.raises(ValueError, match=message):
            sampler.draw(tilt, 20, generator=gen())
    for n, generator, message in ((0, gen(), "n: expected"), (5, None, "generator: expected a torch.Generator")):
        with pytest.raises(ValueError, match=message):
            sampler.draw(GaussianTilt(), n, generator=generator)
    draws = sampler.draw(constant(0.0), 30, generator=gen())
    assert draws.x.shape == (30, 2)


def test_particles_without_weight_are_left_behind():
    class Half(GaussianTilt):
        def energy(self, u):
            return torch.where(u[:, 0] < 1, torch.inf, 2 * u[:, 1])

    draws = TemperedSMC().draw(Half(), 1_000, generator=gen(3))
    assert bool((draws.latent[:, 0] >= 1).all())
    expected = 2 + math.log(0.158655)
    assert abs(draws.diagnostics["log_z"] - expected) < 4.9 * draws.diagnostics["log_z_se"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TemperedSMC(particles=0), "particles: expected a whole number of at least 1, got 0"),
        (lambda: TemperedSMC(n_steps=0), "n_steps: expected"),
        (lambda: TemperedSMC(ess=1.0), "ess: expected a number in"),
        (lambda: TemperedSMC(kernel=ULA(0.1)), "kernel: expected a Metropolis-adjusted one, got ULA; use MALA or PCN"),
        (lambda: ParallelTempering(kernel=ULA(0.1)), "kernel: expected a Metropolis-adjusted one"),
        (lambda: ParallelTempering(ladder=[0, 0.5, 0.2, 1]), r"ladder: expected inverse temperatures that rise from 0"),
        (lambda: ParallelTempering(ladder=[0.1, 1]), "begin at 0 and end at 1"),
        (lambda: ParallelTempering(ladder=3), "ladder: expected inverse temperatures"),
        (lambda: ParallelTempering(rounds=0), "rounds: expected"),
        (lambda: bracket_log_z(GaussianTilt(), ladder=[1, 0], generator=gen()), "ladder: expected"),
        (lambda: bracket_log_z(GaussianTilt(), kernel=ULA(0.1), generator=gen()), "kernel: expected a Metropolis"),
        (
            lambda: bracket_log_z(GaussianTilt(), draws=torch.zeros(3), generator=gen()),
            "draws: expected floats of shape",
        ),
        (lambda: bracket_log_z(GaussianTilt(), generator=None), "generator: expected"),
        (lambda: Auto(pool=0), "pool: expected"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
