"""The main job on MNIST, shortened: the tilt balances digits without their labels, and all samplers agree on it."""

import json
import math

import pytest
import torch

from latentebm.debiaser import Debiaser
from latentebm.sampling import (
    HMC,
    ISIR,
    MALA,
    NUTS,
    PCN,
    PCNL,
    PMC,
    SNIS,
    ULA,
    Auto,
    EllipticalSlice,
    Langevin,
    ParallelTempering,
    Rejection,
    TemperedSMC,
    agreement,
)
from tests.sampling_targets import gen

N = 3_000


@pytest.fixture(scope="module")
def metrics(mnist_run):
    return json.loads((mnist_run / "metrics.json").read_text(encoding="utf-8"))


def test_digits_are_balanced(metrics):
    assert metrics["untilted"]["tv"] > 0.15
    assert metrics["tilted"]["tv"] < 0.5 * metrics["untilted"]["tv"]
    assert metrics["tilted"]["frechet"] < metrics["untilted"]["frechet"]


def test_the_weights_are_healthy(metrics):
    assert metrics["tilted"]["ess"] > 0.2
    assert metrics["tilted"]["pareto_k"] < 0.7
    assert metrics["tilted"]["heldout_gain"] > 0.1


def test_the_judge_is_good(metrics):
    assert metrics["classifier"]["accuracy"] > 0.98
    assert metrics["data"]["biased_total"] == 18_353


@pytest.fixture(scope="module")
def tilt(mnist_run):
    return Debiaser.load(mnist_run).tilt()


@pytest.fixture(scope="module")
def exact(tilt):
    draws = SNIS(pool=500_000).draw(tilt, 50_000, generator=gen(1))
    assert draws.diagnostics["reliable"]
    assert draws.diagnostics["ess"] < 0.9  # the tilt does tilt
    return draws


def masses(u):
    """Indicators (N, 5) of the quadrants but one, of a disc and of a far ring."""
    r = u.norm(dim=1)
    parts = [
        (u[:, 0] > 0) & (u[:, 1] > 0),
        (u[:, 0] > 0) & (u[:, 1] < 0),
        (u[:, 0] < 0) & (u[:, 1] > 0),
        r < 0.7,
        r > 2,
    ]
    return torch.stack(parts, 1).double()


def check_agrees(draws, exact):
    """Region masses within 3 standard errors of one another, and no energy distance to speak of."""
    size = draws.diagnostics.get("ess_bulk", len(draws))
    p = masses(exact.latent).mean(0)
    pool = exact.diagnostics["pool"] * exact.diagnostics["ess"]
    se = (p * (1 - p) * (1 / size + 1 / len(exact) + 1 / pool)).sqrt()
    z = (masses(draws.latent).mean(0) - p) / se
    assert bool((z.abs() < 3.0).all()), z
    thin = math.ceil(len(draws) / min(size, 1_000))
    x = draws.latent[::thin]
    assert agreement(x, exact.latent[: len(x)], generator=gen(), permutations=499).p_value > 0.002


@pytest.mark.parametrize(
    "sampler",
    [
        Rejection(pilot=50_000, chunk=16_384),
        ISIR(n_steps=20),
        Langevin(),
        Langevin(kernel=ULA(0.01), n_steps=500, trace=0),
        PMC(MALA(0.5), n_steps=150, size=N),
        Langevin(kernel=PCN(0.4), trace=0),
        Langevin(kernel=PCNL(0.4), trace=0),
        Langevin(kernel=EllipticalSlice(), n_steps=60, trace=0),
        TemperedSMC(particles=N, ess=0.9),
        ParallelTempering(ladder=[0, 0.5, 1], trace=0),
        Auto(),
    ],
    ids=["rejection", "isir", "mala", "ula", "pmc", "pcn", "pcnl", "slice", "smc", "pt", "auto"],
)
def test_samplers_agree(tilt, exact, sampler):
    check_agrees(sampler.draw(tilt, N, generator=gen(2)), exact)


@pytest.mark.parametrize("sampler", [NUTS(chains=2, warm_up=150), HMC(chains=2, warm_up=150)], ids=["nuts", "hmc"])
def test_hamiltonian_samplers_agree(tilt, exact, sampler):
    check_agrees(sampler.draw(tilt, 600, generator=gen(3)), exact)


def test_a_wrong_temperature_does_not_agree(tilt, exact):
    with pytest.raises(AssertionError):
        check_agrees(Langevin(kernel=MALA(0.5, temperature=1.5)).draw(tilt, N, generator=gen(4)), exact)
