"""SNIS, resampling, rejection and i-SIR against the closed forms of a Gaussian and of a two-mode tilt."""

import math

import pytest
import torch
from arviz_stats.base import array_stats

from latentebm.sampling import (
    HMC,
    ISIR,
    MALA,
    NUTS,
    PMC,
    SGLD,
    SNIS,
    ULA,
    ImproperSGLD,
    Langevin,
    RandomWalk,
    Rejection,
    WeightSums,
    resample,
)
from latentebm.sampling.importance import resampling as methods
from latentebm.sampling.learned import AmortizedSampler
from tests.sampling_targets import GaussianTilt, MixtureTilt, assert_mean, gen

METHODS = ["multinomial", "systematic", "residual", "without_replacement"]


@pytest.mark.parametrize("resampling", METHODS)
def test_snis_gaussian(resampling):
    tilt = GaussianTilt()
    draws = SNIS(pool=300_000, chunk=7_000, resampling=resampling).draw(tilt, 5_000, generator=gen(1))
    d = draws.diagnostics
    assert abs(d["log_z"] - tilt.log_z) < 4.9 * d["log_z_se"]
    assert d["log_z_se"] == pytest.approx(math.sqrt((1 / tilt.rho - 1) / 300_000), rel=0.02)
    assert abs(d["ess"] - tilt.rho) < 0.01
    assert d["reliable"]
    assert_mean(draws.latent, tilt.mean)
    assert_mean((draws.latent[:, 0] - tilt.mean[0]) * (draws.latent[:, 1] - tilt.mean[1]), tilt.covariance[0, 1])
    assert_mean(draws.latent[:500], tilt.mean)  # a prefix is a fair sample
    assert torch.equal(draws.x, 2 * draws.latent)
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent))
    assert d["duplicates"] == pytest.approx(1 - len(draws.latent.unique(dim=0)) / 5_000)
    assert resampling != "without_replacement" or d["duplicates"] == 0


SAMPLERS = [
    SNIS(pool=300_000),
    Rejection(pilot=20_000),
    ISIR(n_steps=20),
    Langevin(kernel=MALA(0.5), warm_up=0, n_steps=300),
    Langevin(kernel=ULA(0.02), n_steps=1_500, trace=0),
    Langevin(kernel=RandomWalk(1.0), n_steps=500, target=0.4),
    PMC(MALA(0.5), n_steps=300, size=4_000),
]


def mode_mass(sampler, n=4_000, seed=2, weight=0.7):
    """Error of the right mode's mass in standard errors, on a mixture all samplers can cross."""
    tilt = MixtureTilt(centre=1.5, sd=0.6, weight=weight)
    exact = 0.3 * 0.0062097 + 0.7 * 0.9937903
    draws = sampler.draw(tilt, n, generator=gen(seed))
    size = draws.diagnostics.get("ess_bulk", n)
    return abs((draws.latent[:, 0] > 0).double().mean().item() - exact) / math.sqrt(exact * (1 - exact) / size)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_mode_masses_agree(sampler):
    assert mode_mass(sampler) < 3
    if not isinstance(sampler, PMC):  # whose chains would go on from the right mixture
        assert mode_mass(sampler, weight=0.65) > 3  # a mixture 5 % off is seen


def test_nuts_mode_mass():
    assert mode_mass(NUTS(chains=2, warm_up=120), n=600) < 3
    assert mode_mass(NUTS(chains=2, warm_up=120), n=600, weight=0.4) > 3


def test_a_wrong_temperature_moves_the_mode_mass():
    assert mode_mass(Langevin(kernel=MALA(0.5, temperature=1.5), warm_up=0, n_steps=300)) > 3


def test_hard_mixture():
    """Modes 4 apart: weights and proposals from the base law cross what short Langevin chains cannot."""
    tilt = MixtureTilt()
    draws = SNIS(pool=400_000).draw(tilt, 10_000, generator=gen(2))
    assert abs(draws.diagnostics["ess"] - tilt.rho) < 0.004
    assert abs(draws.diagnostics["log_z"]) < 4.9 * draws.diagnostics["log_z_se"]
    for d in (draws, Rejection().draw(tilt, 5_000, generator=gen(3)), ISIR().draw(tilt, 5_000, generator=gen(4))):
        assert_mean((d.latent[:, 0] > 0).double(), tilt.positive)
    with pytest.raises(AssertionError):  # too few choices: chains that have not yet crossed are seen
        assert_mean(
            (ISIR(n_steps=1, proposals=2).draw(tilt, 5_000, generator=gen(4)).latent[:, 0] > 0).double(), tilt.positive
        )


def test_rejection_is_exact_when_the_pilot_bound_was_too_low():
    tilt = GaussianTilt()
    draws = Rejection(pilot=1, chunk=500).draw(tilt, 20_000, generator=gen(5))
    assert draws.diagnostics["bound_raised"] > 1
    assert_mean(draws.latent, tilt.mean)
    assert_mean((draws.latent - tilt.mean).square(), tilt.covariance.diag())
    assert abs(draws.diagnostics["log_z"] - tilt.log_z) < 4.9 * draws.diagnostics["log_z_se"]
    with pytest.raises(ValueError, match="max_proposals: expected enough for 100 draws"):
        Rejection(pilot=10, chunk=10, max_proposals=20).draw(tilt, 100, generator=gen())


def check_unbiased(resampling, chunks):
    log_weight = torch.randn(40, generator=gen(6)).double() * 2
    p = log_weight.softmax(0)
    n, repeats = 25, 400
    counts = torch.zeros(repeats, 40)
    for i in range(repeats):
        r = methods.make_resampler(resampling, n, gen(i))
        if isinstance(r, methods.TwoPass):
            r.start(float(log_weight.logsumexp(0)))
        for part in log_weight.chunk(chunks):
            r.update(part)
        counts[i] = torch.bincount(r.index, minlength=40)
    error = (counts.mean(0) - n * p).abs()
    assert bool((error < 4.9 * (n * p / repeats).sqrt() + 0.02).all())
    assert bool((counts.sum(1) == n).all())
    if resampling == "systematic":
        assert bool(((counts - n * p).abs() < 1 + 1e-9).all())
    if resampling == "residual":
        assert bool((counts >= (n * p).floor()).all())


@pytest.mark.parametrize("resampling", METHODS[:3])
@pytest.mark.parametrize("chunks", [1, 4])
def test_resampling_is_unbiased(resampling, chunks, monkeypatch):
    check_unbiased(resampling, chunks)

    class Unchanging(methods.RESAMPLING[resampling]):  # choices without chance: a grid that is never shifted
        def uniform(self, n):
            return torch.full((n,), 0.5, dtype=torch.float64)

    class Unweighted(methods.RESAMPLING[resampling]):  # choices that ignore the weights
        def update(self, log_weight):
            return super().update(torch.full_like(log_weight, -math.log(40)))

        def start(self, log_sum):
            super().start(0.0)

    for fault in (Unweighted,) if resampling == "residual" else (Unchanging, Unweighted):
        monkeypatch.setitem(methods.RESAMPLING, resampling, fault)
        with pytest.raises(AssertionError):
            check_unbiased(resampling, chunks)


def check_successive_sampling():
    log_weight = torch.tensor([0.5, 0.3, 0.2]).log()
    draws = torch.stack(
        [resample(log_weight, 2, resampling="without_replacement", generator=gen(i)) for i in range(4_000)]
    )
    assert bool((draws[:, 0] != draws[:, 1]).all())
    assert_mean((draws[:, 0] == 0).double(), 0.5)
    assert_mean(((draws[:, 0] == 0) & (draws[:, 1] == 1)).double(), 0.5 * 0.3 / 0.5)


def test_without_replacement_follows_successive_sampling(monkeypatch):
    check_successive_sampling()

    class Halved(methods.WithoutReplacement):  # no Gumbel noise
        def uniform(self, n):
            return (1 + super().uniform(n)) / 2

    monkeypatch.setitem(methods.RESAMPLING, "without_replacement", Halved)
    with pytest.raises(AssertionError):
        check_successive_sampling()


# The releases of arviz-stats for Python 3.10 lack psislw: there is nothing to compare with.
@pytest.mark.skipif(not hasattr(array_stats, "psislw"), reason="arviz-stats for Python 3.10 has no psislw")
def test_pareto_k_matches_arviz():
    for scale in (0.5, 2.0, 5.0):
        log_weight = torch.randn(20_000, generator=gen(8)).double() * scale
        sums = WeightSums(20_000)
        for part in log_weight.split(3_000):
            sums.add(part)
        _, k = array_stats.psislw(-log_weight.numpy())
        assert sums.pareto_k == pytest.approx(float(k), abs=0.02)
    assert WeightSums(100).pareto_k_threshold == 0.0
    sums.count = 10_000
    assert sums.pareto_k_threshold == 0.7


def test_collapse_is_refused():
    class Collapsed(GaussianTilt):
        def energy(self, u):
            return 200 * (u - 4).square().sum(1)

    d = SNIS(pool=20_000).draw(Collapsed(), 1_000, generator=gen()).diagnostics
    assert d["ess"] < 0.01
    assert d["duplicates"] > 0.9
    assert not d["reliable"]


def constant_energy(value):
    class Constant(GaussianTilt):
        def energy(self, u):
            return torch.full((len(u),), value)

    return Constant()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SNIS(pool=100).draw(constant_energy(math.inf), 5, generator=gen()), "at least one weight above zero"),
        (lambda: SNIS(pool=100).draw(constant_energy(math.nan), 5, generator=gen()), "numbers below infinity"),
        (lambda: SNIS(pool=100).draw(constant_energy(-math.inf), 5, generator=gen()), "numbers below infinity"),
        (
            lambda: Rejection(pilot=50).draw(constant_energy(math.inf), 5, generator=gen()),
            "at least one weight above zero",
        ),
        (lambda: ISIR().draw(constant_energy(math.inf), 5, generator=gen()), "got 5 of 5 chains at weight zero"),
        (lambda: resample(torch.zeros(3, 1), 2, generator=gen()), r"log_weight: expected a tensor of shape \(K,\)"),
        (lambda: resample([0.0, 1.0], 2, generator=gen()), r"log_weight: expected a tensor of shape \(K,\)"),
        (lambda: resample(torch.zeros(3), 2, generator=None), "generator: expected"),
        (lambda: SNIS(resampling="bootstrap"), "resampling: expected one of multinomial"),
        (lambda: SNIS(pool=0), "pool: expected"),
        (
            lambda: SNIS(pool=9, resampling="without_replacement").draw(GaussianTilt(), 10, generator=gen()),
            "n: expected at most pool=9 distinct draws, got 10",
        ),
        (
            lambda: resample(torch.tensor([0.0, -math.inf]), 2, resampling="without_replacement", generator=gen()),
            "got 1 points of positive weight",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Column(GaussianTilt):
    def energy(self, u):
        return super().energy(u)[:, None]


class Total(GaussianTilt):
    def energy(self, u):
        return super().energy(u).sum()


class Whole(GaussianTilt):
    def sample_base(self, n, *, generator):
        return torch.randint(3, (n, 2), generator=generator)


class Counted(GaussianTilt):
    def energy(self, u):
        return (u[:, 0] > 0).long()


class Source:
    """A learned sampler's points."""

    def sample(self, n, *, generator):
        return torch.randn(n, 2, generator=generator)


ALL = [*SAMPLERS, HMC(chains=2, warm_up=5), NUTS(chains=2, warm_up=5), AmortizedSampler(Source())]
ALL += [Langevin(kernel=k, n_steps=3) for k in (RandomWalk(0.5), SGLD(), ImproperSGLD(alpha=0.1, sigma=0.1))]


@pytest.mark.parametrize("sampler", ALL, ids=lambda s: type(s).__name__)
def test_every_sampler_asks_for_one_energy_a_point(sampler):
    shape, floating = "energy: expected shape", "expected .*floating"
    tilts = [(Column(), shape), (Total(), shape), (Counted(), floating), (constant_energy(math.nan), "(NaN|nan)")]
    if not isinstance(sampler, AmortizedSampler):  # its points are not the base's
        tilts.append((Whole(), floating))
    for tilt, message in tilts:
        sampler = PMC(MALA(0.5), n_steps=3, size=100) if isinstance(sampler, PMC) else sampler
        with pytest.raises(ValueError, match=message):
            sampler.draw(tilt, 20, generator=gen())


@pytest.mark.parametrize("sampler", ALL, ids=lambda s: type(s).__name__)
def test_every_sampler_asks_for_a_generator(sampler):
    for missing in (None, 0):
        with pytest.raises(ValueError, match=r"generator: expected a torch.Generator, got (None|int)"):
            sampler.draw(GaussianTilt(), 5, generator=missing)


def test_isir_says_which_chains_never_met_the_support():
    class Far(GaussianTilt):
        def energy(self, u):
            return torch.where(u[:, 0] > 3, 0.0, torch.inf)

    with pytest.raises(ValueError, match="chains at weight zero after 30 steps; take more steps"):
        ISIR().draw(Far(), 1_000, generator=gen())


def test_planted_faults_in_the_weights(monkeypatch):
    class Upside(GaussianTilt):
        def energy(self, u):
            return -super().energy(u)  # the sign of the tilt

    class Shrunk(GaussianTilt):
        def sample_base(self, n, *, generator):
            return 0.9 * super().sample_base(n, generator=generator)  # another base than the one said

    def check(tilt, sampler):
        assert_mean(sampler.draw(tilt, 4_000, generator=gen(3)).latent, tilt.mean)

    for sampler in (SNIS(pool=100_000), Rejection(pilot=5_000), ISIR()):
        check(GaussianTilt(), sampler)
        for fault in (Shrunk(),) if isinstance(sampler, Rejection) else (Upside(), Shrunk()):
            with pytest.raises(AssertionError):
                check(fault, sampler)
    # A mean weight over another count than the pool's.
    monkeypatch.setattr(WeightSums, "log_z", property(lambda s: s.log_sum - math.log(s.count + s.size)))
    with pytest.raises(AssertionError):
        test_snis_gaussian("multinomial")
