"""Kernels and chains against the closed forms of the Gaussian, and what they do with bad input."""

import math
from dataclasses import fields

import pytest
import torch
from torch.distributions import Normal

from latentebm.models.energies import EnergyNet
from latentebm.sampling import (
    HMC,
    MALA,
    NUTS,
    PMC,
    SGLD,
    ULA,
    FusedMLP,
    ImproperSGLD,
    Langevin,
    RandomWalk,
    agreement,
    run_chains,
    start_chains,
    tune_step,
)
from latentebm.sampling.mcmc import chains, moves
from latentebm.sampling.mcmc.annealed import annealed_langevin
from tests.sampling_targets import A, B, GaussianTilt, MixtureTilt, assert_mean, gen

N = 200_000


def gaussian(k):
    """Potential of N(0, 1/k) in one dimension."""
    return lambda x: 0.5 * k * x.square().sum(1)


def check_variance(kernel, expected, k=1.0, steps=40):
    """Chains started at the law the kernel should leave unchanged keep its variance."""
    x = math.sqrt(expected) * torch.randn(N, 1, generator=gen(0))
    x = run_chains(gaussian(k), x, kernel, steps, generator=gen(1)).state.position
    assert abs(x.square().mean().item() / expected - 1) < 4.9 * math.sqrt(2 / N)


# Closed forms: ULA T s²/(1 − η/2s²); kernel form 1/(k(1 − εk/4)); ImproperSGLD σ²/(1 − (1 − ½αk)²).
LAWS = [
    (ULA(0.2), 1.0, 1 / (1 - 0.1)),
    (ULA(0.2, temperature=0.5), 4.0, 0.5 / 4 / (1 - 0.4)),
    (ULA(1.9), 1.0, 1 / (1 - 0.95)),
    (ULA(0.1, preconditioner=torch.tensor([2.0])), 1.0, 1 / (1 - 0.1)),
    (SGLD(a=0.4, gamma=0.0), 2.0, 1 / (2 * (1 - 0.4 * 2 / 4))),
    (ImproperSGLD(alpha=0.4, sigma=0.3), 2.0, 0.09 / (1 - (1 - 0.4) ** 2)),
    (MALA(0.5), 2.0, 0.5),
    (MALA(0.5, temperature=0.25), 2.0, 0.125),
    (MALA(0.5, clip=0.3), 2.0, 0.5),
    (MALA(0.25, preconditioner=torch.tensor([2.0])), 2.0, 0.5),
]


@pytest.mark.parametrize(("kernel", "k", "expected"), LAWS)
def test_stationary_variance(kernel, k, expected):
    check_variance(kernel, expected, k)


def fails(monkeypatch, fault, check):
    """Plant a fault and see the check fail."""
    with monkeypatch.context() as m:
        m.setattr(*fault)
        with pytest.raises(AssertionError):
            check()


def scaled(kernel, scales):
    """A kernel of the same settings whose drift and noise are other ones."""
    faulty = type("Faulty", (type(kernel),), {"scales": scales})
    return faulty(**{field.name: getattr(kernel, field.name) for field in fields(kernel)})


FAULTS = [
    (ULA(0.2), lambda k, t: (k.step, math.sqrt(k.step)), 1 / 0.9, 1.0),  # noise √2 off
    (ImproperSGLD(alpha=0.4, sigma=0.3), lambda k, t: (k.alpha, k.sigma), 0.09 / 0.64, 2.0),  # drift α, not α/2
    (SGLD(a=0.4, gamma=0.0), lambda k, t: (k.a / 2, k.a), 1 / 0.9, 1.0),  # noise of sd ε in place of variance ε
    (MALA(0.5, temperature=0.25), lambda k, t: (k.step, math.sqrt(2 * k.step) * k.temperature), 0.125, 2.0),
]


def test_planted_faults_in_the_kernels(monkeypatch):
    for kernel, scales, expected, k in FAULTS:
        check_variance(kernel, expected, k)
        with pytest.raises(AssertionError):
            check_variance(scaled(kernel, scales), expected, k)
    free = (moves, "log_acceptance", lambda old, *rest: torch.zeros_like(old[1]))  # no Metropolis ratio
    fails(monkeypatch, free, lambda: check_variance(MALA(0.5), 0.5, 2.0))


def test_ula_is_stable_below_twice_the_variance_only():
    ends = [run_chains(gaussian(4.0), torch.ones(9, 1), ULA(eta), 400, generator=gen()) for eta in (0.49, 0.51)]
    assert ends[0].state.position.abs().max() < 20
    assert ends[1].state.position.abs().min() > 1e5


def check_law_is_kept(kernel):
    """Exact draws of a two-mode law, moved by an exact kernel, stay within the DKW band of α = 1e-6."""
    part = lambda m: Normal(m, 0.5)  # noqa: E731
    x = torch.where(torch.rand(N, 1, generator=gen(6)) < 0.7, 2.0, -2.0) + 0.5 * torch.randn(N, 1, generator=gen(7))
    x = run_chains(MixtureTilt().potential, x, kernel, 20, generator=gen(8)).state.position[:, 0].double().sort().values
    excess = 0.3 * part(-2.0).cdf(x) + 0.7 * part(2.0).cdf(x) - torch.arange(N) / N
    assert max(excess.max(), 1 / N - excess.min()) < math.sqrt(math.log(2 / 1e-6) / (2 * N))


def test_exact_kernels_keep_the_law(monkeypatch):
    kernels = (MALA(0.2), MALA(0.1, preconditioner=torch.tensor([3.0]), clip=2.0), RandomWalk(1.0))
    for kernel in kernels:
        check_law_is_kept(kernel)
    with pytest.raises(AssertionError):
        check_law_is_kept(ULA(0.05))
    free = (moves, "log_acceptance", lambda old, *rest: torch.zeros_like(old[1]))
    cold = (moves, "log_acceptance", lambda *p, own=moves.log_acceptance: 1.2 * own(*p))
    for kernel in kernels:
        for fault in (free, cold):
            fails(monkeypatch, fault, lambda kernel=kernel: check_law_is_kept(kernel))


def check_covariance(preconditioner=None, eta=0.4, kernel=None):
    """Chains on ½x'Ax, started at Σ = (A − ½ η A P A)⁻¹, keep it: its entries' variances are (Σii Σjj + Σij²)/N."""
    p = torch.ones(2) if preconditioner is None else preconditioner
    expected = torch.linalg.inv(A - eta / 2 * A @ p.diag() @ A)
    x = torch.randn(N, 2, generator=gen(0)) @ torch.linalg.cholesky(expected).T
    kernel = kernel or ULA(eta, preconditioner=preconditioner)
    x = run_chains(lambda x: 0.5 * ((x @ A) * x).sum(1), x, kernel, 40, generator=gen(1)).state.position
    sd = ((expected.diag()[:, None] * expected.diag() + expected.square()) / N).sqrt()
    assert bool(((x.T @ x / N - expected).abs() < 4.9 * sd).all())


def test_stationary_covariance(monkeypatch):
    precondition = torch.tensor([0.5, 2.0])
    for p in (None, precondition):
        check_covariance(p)
    own = moves.langevin_update
    alone = (moves, "langevin_update", lambda x, g, xi, d, s, p: own(x, g * p, xi, d, s))  # noise without P
    fails(monkeypatch, alone, lambda: check_covariance(precondition))
    unmixed = (moves, "langevin_update", lambda x, g, xi, d, s, p: own(x, x * A.diag(), xi, d, s, p))  # A's diagonal
    fails(monkeypatch, unmixed, check_covariance)
    with pytest.raises(AssertionError):
        check_covariance(kernel=scaled(ULA(0.4), lambda k, t: (k.step, math.sqrt(k.step))))


def check_transient(temperature, steps=5):
    """Mean aᵗ x0 and variance v(1 − a²ᵗ), a = 1 − η, at t = 5."""
    a, t = 0.8, 5
    kernel = ULA(0.2, temperature=temperature)
    x = run_chains(gaussian(1.0), torch.full((N, 1), 3.0), kernel, steps, generator=gen(2)).state.position
    if temperature == 0:
        torch.testing.assert_close(x, torch.full_like(x, 3 * a**t))
        return
    v = (1 - a ** (2 * t)) / (1 - 0.1)
    assert abs(x.mean().item() - 3 * a**t) < 4.9 * math.sqrt(v / N)
    assert abs(x.var().item() / v - 1) < 4.9 * math.sqrt(2 / N)


def test_transient_and_steps_are_exact():
    for temperature in (1.0, 0.0):
        check_transient(temperature)
        with pytest.raises(AssertionError):
            check_transient(temperature, steps=4)


def check_gradient_of_its_own(potential):
    """A chain moves alike whether alone or one of many: energies are summed over the batch, never averaged."""
    x = torch.randn(50, 2, generator=gen(3))
    many = run_chains(potential, x, ULA(0.1, temperature=0.0), 4, generator=gen()).state.position
    one = run_chains(potential, x[:1], ULA(0.1, temperature=0.0), 4, generator=gen()).state.position
    torch.testing.assert_close(many[:1], one)


class Averaged(GaussianTilt):
    """The gradient of the mean over the batch."""

    def value_and_grad(self, u):
        return self.potential(u), (u @ A - B + u) / len(u)


def test_gradients_do_not_depend_on_the_batch():
    check_gradient_of_its_own(GaussianTilt())
    with pytest.raises(AssertionError):
        check_gradient_of_its_own(Averaged())


def test_log_ratio_closed_form():
    x, y = torch.randn(2, 6, 2, generator=gen(4))
    eta, value = 0.3, lambda z: 0.5 * ((z @ A) * z).sum(1)
    ratio = moves.log_acceptance((x, value(x), x @ A), (y, value(y), y @ A), eta, math.sqrt(2 * eta))
    expected = eta / 4 * ((x @ A).square().sum(1) - (y @ A).square().sum(1))
    torch.testing.assert_close(ratio, expected)
    for fault in (value(x) - value(y), -ratio, ratio / 2):  # no ratio of the proposals; its sign; its temperature
        assert not torch.allclose(fault, expected)


def check_acceptance(eta=0.5):
    x = torch.randn(N, 1, generator=gen(4))
    run = run_chains(gaussian(1.0), x, MALA(eta), 5, generator=gen(5))
    expected = 1 - 2 / math.pi * math.atan((eta / 2) ** 1.5)
    assert abs(run.info.acceptance - expected) < 4.9 * 0.5 / math.sqrt(N)


def test_mala_acceptance_closed_form(monkeypatch):
    check_acceptance()
    metropolis = (moves, "log_acceptance", lambda old, new, *rest: old[1] - new[1])  # no ratio of the proposals
    fails(monkeypatch, metropolis, check_acceptance)


def test_langevin_default_reaches_both_laws():
    tilt = GaussianTilt()
    draws = Langevin().draw(tilt, 10_000, generator=gen(3))
    assert_mean(draws.latent, tilt.mean)
    assert_mean((draws.latent - tilt.mean).square(), tilt.covariance.diag())
    d = draws.diagnostics
    assert abs(d["acceptance"] - 0.574) < 0.1
    assert d["rhat"] < 1.05
    assert d["reverted"] == 0
    assert draws.trace.shape == (200, 64, 2)
    torch.testing.assert_close(draws.log_weight, -tilt.energy(draws.latent))
    same = Langevin().draw(tilt, 10_000, generator=gen(3))
    assert torch.equal(draws.latent, same.latent)
    mixture = MixtureTilt(centre=1.5, sd=0.6)
    assert_mean(
        (Langevin().draw(mixture, 10_000, generator=gen(4)).latent[:, 0] > 0).double(), 0.3 * 0.00621 + 0.7 * 0.99379
    )


def test_a_random_walk_reports_its_step():
    walk = RandomWalk(0.7)
    for sampler in (Langevin(kernel=walk, n_steps=5, warm_up=0), PMC(walk, n_steps=5, size=20)):
        assert sampler.draw(GaussianTilt(), 10, generator=gen()).diagnostics["step_size"] == 0.7


@pytest.mark.parametrize("sampler", [NUTS(chains=2, warm_up=150), HMC(chains=2, warm_up=150)])
def test_hamiltonian_samplers(sampler):
    tilt = GaussianTilt()
    draws = sampler.draw(tilt, 800, generator=gen(6))
    d = draws.diagnostics
    assert d["rhat"] < 1.05
    assert d["divergences"] == 0
    assert d["bfmi"] > 0.3
    assert d["ess_bulk"] > 300  # of 800: trajectories are long enough
    assert draws.trace.shape == (400, 2, 2)
    assert_mean(draws.latent, tilt.mean, size=d["ess_bulk"])
    state = torch.random.get_rng_state()
    again = sampler.draw(tilt, 20, generator=gen(7))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again.latent, sampler.draw(tilt, 20, generator=gen(7)).latent)


def test_any_event_shape_chunks_and_traces():
    x = torch.randn(10, 1, 3, 3, generator=gen(8))
    potential = lambda x: x.square().flatten(1).sum(1) / 2  # noqa: E731
    run = run_chains(potential, x, MALA(0.1), 7, generator=gen(9), trace=2, thin=3, chunk=4)
    assert run.trace.shape == (2, 2, 1, 3, 3)
    assert run.state.step == run.info.steps == 7
    assert not torch.equal(run.state.position, x)
    full = run_chains(potential, x, ULA(0.1), 9, generator=gen(9), trace=10)
    assert torch.equal(full.trace[-1], full.state.position)
    more = run_chains(potential, full.state, SGLD(a=1.0), 2, generator=gen(1))
    assert more.state.step == 11
    assert more.info.step_size == pytest.approx(0.5 * 11**-0.55)


def test_no_parameter_gradients():
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    run_chains(net, torch.randn(5, 2), MALA(0.1), 3, generator=gen())
    assert all(p.grad is None for p in net.parameters())


def test_compiled_and_fused_agree_with_plain(monkeypatch):
    # A short program compiles sooner.
    monkeypatch.setattr(chains, "fastest", lambda *target: moves.fastest(*target)._replace(block=2))
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1), torch.nn.Flatten(0))
    x = torch.randn(64, 2, generator=gen())
    runs = [
        run_chains(p, x, MALA(0.5), 5, generator=gen(1), compile=c, trace=3)
        for p, c in ((net, False), (net, True), (FusedMLP(net), False), (FusedMLP(net), True))
    ]
    for run in runs[1:]:
        torch.testing.assert_close(run.state.position, runs[0].state.position, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(run.trace, runs[0].trace, atol=1e-4, rtol=1e-4)
        assert run.info.acceptance == pytest.approx(runs[0].info.acceptance, abs=1e-4)


def test_without_a_compiler_the_plain_steps_run(monkeypatch):
    monkeypatch.setattr(moves, "why_not_compiled", lambda: "no C++ compiler")
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler; the plain steps run"):
        run_chains(gaussian(1.0), torch.zeros(2, 1), ULA(0.1), 8, generator=gen(), compile=True)


def test_non_finite_proposals_are_reverted_and_counted():
    def wall(x):
        return torch.where(x[:, 0] > 0, x[:, 0], torch.inf)

    run = run_chains(wall, torch.ones(500, 1), ULA(0.5), 50, generator=gen())
    assert run.info.reverted > 0
    assert bool((run.state.position > 0).all())
    # The law of a Metropolis-adjusted chain behind a wall is exact: exponential of rate 1.
    start = torch.empty(20_000, 1).exponential_(generator=gen(2))
    assert_mean(run_chains(wall, start, MALA(0.5), 40, generator=gen(3)).state.position, torch.ones(1))


def test_clipped_gradients_are_reported():
    run = run_chains(gaussian(1.0), torch.full((4, 1), 50.0), ULA(0.1, clip=1.0), 5, generator=gen())
    assert run.info.clipped == 1.0
    assert bool((run.state.position > 45).all())


def test_interrupt_keeps_what_is_done():
    def track(items, description):
        for k, item in enumerate(items):
            if k == 2:
                raise KeyboardInterrupt
            yield item

    asked = {"generator": gen(), "track": track, "trace": 3}
    run = run_chains(gaussian(1.0), torch.ones(3, 1), ULA(0.1), 100, partial=True, **asked)
    assert run.info.steps == run.state.step == len(run.trace) == 16


@pytest.mark.parametrize("asked", [0, 1, 9, 14])
def test_interrupt_within_a_block_leaves_no_chain_ahead(asked):
    def break_after(calls):
        left = [calls]

        def potential(x):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return x.square().sum(1) / 2

        return potential

    start = start_chains(gaussian(1.0), torch.ones(6, 1))
    settings = {"generator": gen(), "chunk": 3, "trace": 3}
    run = run_chains(break_after(16 + asked), start, ULA(0.1), 24, **settings, partial=True)
    assert run.info.steps == run.state.step == len(run.trace) == 8
    whole = run_chains(gaussian(1.0), start, ULA(0.1), 8, **settings | {"generator": gen()})
    assert torch.equal(run.state.position, whole.state.position)
    with pytest.raises(KeyboardInterrupt):
        run_chains(break_after(16 + asked), start, ULA(0.1), 24, **settings)


def test_an_energy_of_ones_own_is_not_mistaken_for_the_one_it_extends():
    """It is refused until its gradient is its own as well; the compiled program of the other is never taken."""

    class Well(EnergyNet):
        def forward(self, z):
            return super().forward(z) + 50 * (z[:, 0] - 3).square()

    start, settings = torch.zeros(500, 1), {"generator": gen()}
    with pytest.raises(
        ValueError, match="Well's potential from value_and_grad, got other ones; override value_and_grad"
    ):
        run_chains(Well(1), start, MALA(0.005), 400, **settings)
    Well.value_and_grad = None  # as the error advises
    x = run_chains(Well(1), start, MALA(0.005), 400, **settings).state.position
    assert abs(x.mean().item() - 3) < 0.1


def test_agreement_has_its_level_and_power():
    x, y = torch.randn(400, 2, generator=gen(1)), torch.randn(300, 2, generator=gen(2))
    assert agreement(x, y, generator=gen(3)).p_value > 0.01
    assert agreement(x, 1.5 * y, generator=gen(3)).p_value < 0.005
    levels = [agreement(x[i::40], y[i::40], generator=gen(i), permutations=39).p_value for i in range(40)]
    assert 0.25 < sum(levels) / 40 < 0.8


class Closed:
    """A potential whose own gradient comes with a column of energies."""

    def value_and_grad(self, x):
        return x.square() / 2, x


def nan_start(n, *, generator):
    return torch.full((n, 2), torch.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ULA(0.0), r"step: expected a number in"),
        (lambda: MALA(math.nan), "step: expected"),
        (lambda: MALA(0.1, temperature=0.0), "temperature: expected"),
        (lambda: SGLD(a=-1.0), "a: expected"),
        (lambda: SGLD(gamma=2.0), "gamma: expected"),
        (lambda: ImproperSGLD(alpha=-0.1, sigma=0.1), "alpha: expected"),
        (lambda: ImproperSGLD(alpha=0.1, sigma=-0.1), "sigma: expected"),
        (lambda: ULA(0.1, clip=0.0), "clip: expected"),
        (lambda: ULA(0.1, preconditioner=torch.tensor([1.0, 0.0])), "preconditioner: expected positive"),
        (lambda: Langevin(kernel="mala"), r"kernel: expected ULA, SGLD, ImproperSGLD, MALA, RandomWalk, .*got 'mala'"),
        (lambda: RandomWalk(0.0), "step: expected"),
        (lambda: Langevin(target=1.5), "target: expected"),
        (lambda: HMC(trajectory=math.inf), "trajectory: expected"),
        (lambda: annealed_langevin(gaussian(1.0), [[1.0]], [1.0], generator=gen()), "position: expected a tensor"),
        (lambda: Langevin(n_steps=0), "n_steps: expected a whole number of at least 1"),
        (lambda: Langevin().draw(GaussianTilt(), 0, generator=gen()), "n: expected"),
        (lambda: run_chains(gaussian(1.0), torch.ones(2, 1), ULA(0.1), 0, generator=gen()), "n_steps: expected"),
        (
            lambda: run_chains(gaussian(1.0), torch.ones(2, 1).long(), ULA(0.1), 1, generator=gen()),
            "floating tensor, got",
        ),
        (
            lambda: start_chains(lambda x: x, torch.ones(2, 1)),
            r"expected shape \(2,\), got \(2, 1\); return one energy",
        ),
        (lambda: start_chains(lambda x: x.sum(), torch.ones(2, 1)), r"expected shape \(2,\), got \(\)"),
        (lambda: start_chains(gaussian(1.0), torch.ones(0, 1)), "N ≥ 1"),
        (lambda: start_chains(gaussian(1.0), torch.tensor([[1.0], [math.nan]])), "got nan at chain 1; start"),
        (
            lambda: start_chains(gaussian(1.0), torch.tensor([[math.nan]]), lambda k: torch.full((k, 1), math.nan)),
            "at chain 0 after 100 redraws",
        ),
        (lambda: tune_step(gaussian(1.0), torch.ones(2, 1), ULA(0.1), 5, generator=gen()), "use MALA"),
        (lambda: tune_step(gaussian(1.0), torch.ones(2, 1), "mala", 5, generator=gen()), "kernel: expected"),
        (
            lambda: run_chains(gaussian(1.0), torch.ones(2, 1), ULA(0.1), 5, generator=None),
            "generator: expected a torch.Generator, got NoneType; pass torch.Generator",
        ),
        (lambda: run_chains(gaussian(1.0), [[1.0]], ULA(0.1), 5, generator=gen()), "a ChainState, got list"),
        (lambda: ULA(0.1, preconditioner=2.0), "preconditioner: expected a tensor"),
        (
            lambda: run_chains(
                gaussian(1.0), torch.ones(2, 1), ULA(0.1, preconditioner=torch.ones(3)), 5, generator=gen()
            ),
            r"broadcasts to \(1,\), got \(3,\)",
        ),
        (lambda: start_chains(lambda x: torch.zeros(len(x)), torch.ones(2, 1)), "one that depends on x"),
        (lambda: start_chains(Closed(), torch.ones(2, 1)), r"\(2,\) and \(2, 1\) of value_and_grad, got \(2, 1\)"),
        (lambda: agreement(torch.ones(5), torch.ones(5), generator=gen()), "samples: expected"),
        (lambda: agreement(torch.ones(5, 1), torch.ones(5, 1), generator=None), "generator: expected"),
        (lambda: start_chains(gaussian(1.0), torch.ones(2, 1), chunk=0), "chunk: expected"),
        (
            lambda: run_chains(lambda x: x[:, 0] > 0, torch.ones(2, 1), RandomWalk(0.1), 1, generator=gen()),
            "potential: expected floating numbers, got torch.bool",
        ),
        (
            lambda: agreement(torch.full((5, 1), math.nan), torch.ones(5, 1), generator=gen()),
            "samples: expected finite",
        ),
        (lambda: FusedMLP(torch.nn.Sequential(torch.nn.Linear(2, 3))), "net: expected Linear, SiLU"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_redraws_and_minus_infinity():
    state = start_chains(gaussian(1.0), torch.tensor([[math.nan], [1.0]]), lambda k: torch.full((k, 1), 3.0))
    assert state.position.tolist() == [[3.0], [1.0]]
    sink = lambda x: torch.where(x[:, 0] > 1, -torch.inf, x[:, 0])  # noqa: E731
    for kernel in (ULA(1.0), MALA(1.0)):
        with pytest.raises(FloatingPointError, match="got -inf at chain"):
            run_chains(sink, torch.zeros(50, 1), kernel, 50, generator=gen())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_chains_do_not_step_in_half_precision(dtype):
    with pytest.raises(ValueError, match=r"position: expected float32 or float64, .* got torch.*float16"):
        run_chains(lambda x: x.square().sum(1), torch.zeros(2, 1, dtype=dtype), MALA(0.1), 1, generator=gen())


@pytest.mark.parametrize("kind", [Langevin, PMC])
def test_chains_start_at_base_draws_by_their_weights(kind):
    """.3 N(−2, .5²) + .7 N(2, .5²): a step as short as this leaves every chain where it starts."""

    def right(starts):
        kernel, size = MALA(1e-4), 4000
        sampler = (
            Langevin(kernel=kernel, n_steps=1, warm_up=0, starts=starts)
            if kind is Langevin
            else PMC(kernel, n_steps=1, size=size, starts=starts)
        )
        return float((sampler.draw(MixtureTilt(), size, generator=gen(0)).latent > 0).float().mean())

    # An effective share of .116 of ten base draws for each chain, and the chains themselves.
    tolerance = 4.9 * math.sqrt(0.21 / 4000 * (1 + 1 / 1.16))
    assert abs(right(10) - 0.699987) < tolerance
    assert abs(right(1) - 0.699987) > tolerance
    with pytest.raises(ValueError, match="starts: expected a whole number of at least 1, got 0"):
        right(0)
