"""Attribute tilts, strengths and other people's models, against closed forms on a Gaussian latent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.data_tilts import DataTilt
from latentebm.models.features import Attribute, FeatureEnergy, JointFeatures, LinearEnergy
from latentebm.models.latent_model import check_model
from latentebm.models.tilts import LatentTilt, ScaledTilt
from latentebm.sampling import ISIR, PMC, SGLD, SNIS, ULA, Langevin, RandomWalk, Rejection
from latentebm.tilting.attributes import expected_shares, tilt_attributes

RHO = 0.8
PLAIN = WrappedModel(nn.Identity(), 2)
CORRELATED = WrappedModel(lambda z: torch.stack([z[:, 0], RHO * z[:, 0] + 0.6 * z[:, 1]], 1), 2)


def sign(column: int, share: float) -> Attribute:
    return Attribute(lambda x: x[:, column] > 0, {False: 1 - share, True: share}, f"sign {column}")


def test_a_sign_has_its_exact_energies_and_log_z(rng):
    tilt = tilt_attributes(PLAIN, sign(0, 0.8), generator=rng)
    low, high = tilt.energy(torch.tensor([[-1.0, 0.0], [1.0, 0.0]])).tolist()
    # The pool's share of positive signs has sd .0022, its logit .0089: 4.9 of them are α = 1e-6.
    assert low - high == pytest.approx(math.log(4), abs=0.044)
    draws = SNIS(pool=200_000).draw(tilt, 1000, generator=rng)
    exact = math.log(0.5 * math.exp(-low) + 0.5 * math.exp(-high))
    assert draws.diagnostics["log_z"] == pytest.approx(exact, abs=4.9 * draws.diagnostics["log_z_se"])
    assert draws.diagnostics["ess"] == pytest.approx(1 / (0.5 * (1.6**2 + 0.4**2)), abs=0.02)


def odds_ratio(tilt, rng) -> float:
    u = torch.randn(400_000, 2, generator=rng)
    x, w = tilt.decode(u) > 0, (-tilt.energy(u)).double().exp()
    cell = {(a, b): float(w[(x[:, 0] == a) & (x[:, 1] == b)].sum()) for a in (0, 1) for b in (0, 1)}
    return math.log(cell[0, 0] * cell[1, 1] / cell[0, 1] / cell[1, 0])


BOTH = (sign(0, 0.8), sign(1, 0.3))


def check_marginals(tilt, rng) -> None:
    """Both marginals hold together, and the odds ratio stays the prior's: that is what proportional fitting keeps."""
    found = expected_shares(tilt, BOTH, pool=400_000, generator=rng)
    assert found["sign 0"][True] == pytest.approx(0.8, abs=0.015)
    assert found["sign 1"][True] == pytest.approx(0.3, abs=0.015)
    same = 0.25 + math.asin(RHO) / (2 * math.pi)
    assert odds_ratio(tilt, rng) == pytest.approx(2 * math.log(same / (0.5 - same)), abs=0.12)


def test_two_marginals_hold_together(rng):
    check_marginals(tilt_attributes(CORRELATED, BOTH, generator=rng), rng)


@pytest.mark.parametrize("fault", ["each attribute alone", "opposite"])
def test_faults_in_the_fit_are_caught(fault, rng):
    """θ as if the attributes were independent, one pass that is not iterated; and the right θ with the other sign."""
    theta = torch.tensor([0.2, 0.8, 0.7, 0.3]).mul(2).log()
    if fault == "opposite":
        theta = -tilt_attributes(CORRELATED, BOTH, generator=rng).net.energy.theta
    faulty = LatentTilt(CORRELATED, FeatureEnergy(CORRELATED, JointFeatures(BOTH), LinearEnergy(theta)))
    with pytest.raises(AssertionError):
        check_marginals(faulty, rng)


def test_soft_classifiers_and_unwanted_values(rng):
    soft = Attribute(lambda x: torch.stack([x[:, 0], -x[:, 0], 0 * x[:, 0]], 1).softmax(1), {0: 0.5, 1: 0.5, 2: 0.0})
    with pytest.raises(ValueError, match="shares that the model's draws can reach"):
        tilt_attributes(PLAIN, soft, generator=rng)
    soft = Attribute(soft.function, {"up": 0.5, "down": 0.3, "flat": 0.2}, "course")
    tilt = tilt_attributes(PLAIN, soft, generator=rng)
    found = expected_shares(tilt, soft, generator=rng)["course"]
    assert sum(abs(found[k] - t) for k, t in soft.target.items()) / 2 < 0.015


@pytest.mark.parametrize("sampler", [SNIS(pool=50_000), Rejection(), ISIR(n_steps=20), Langevin(n_steps=60)])
def test_every_sampler_takes_an_attribute_tilt(sampler, rng):
    up = Attribute(lambda x: torch.stack([-4 * x[:, 0], 4 * x[:, 0]], 1).softmax(1), {"-": 0.3, "+": 0.7}, "up")
    draws = sampler.draw(tilt_attributes(PLAIN, up, generator=rng), 4000, generator=rng)
    # Means of 4,000 draws in [0, 1]: sd at most .0079.
    assert up(draws.x).mean(0)[1].item() == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("kernel", [ULA(0.1), SGLD(0.1, 1.0, 0.5), RandomWalk(0.8)], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("attributes", ["hard", "hard and soft", "constant with a graph"])
def test_unadjusted_chains_refuse_constant_pieces(kernel, attributes, rng):
    """They would draw from the prior; a random walk, which needs no gradient, has the target's shares."""
    hard, soft = sign(0, 0.8), Attribute(UP.function, {"-": 0.5, "+": 0.5}, "soft")
    graph = Attribute(lambda x: torch.stack([1 - x[:, 0].sign(), 1 + x[:, 0].sign()], 1) / 2, {0: 0.2, 1: 0.8})
    tilt = fitted({"hard": hard, "hard and soft": [hard, soft], "constant with a graph": graph}[attributes])
    samplers = Langevin(kernel=kernel, n_steps=60, warm_up=0), PMC(kernel, n_steps=60, size=1000, restart=0)
    for sampler in samplers:
        if not kernel.adjusted:
            with pytest.raises(
                ValueError, match="energy: expected a differentiable one, which unadjusted kernels need"
            ):
                sampler.draw(tilt, 1000, generator=rng)
        elif attributes == "hard":
            # 1,000 draws: sd .0126.
            assert float((sampler.draw(tilt, 1000, generator=rng).x[:, 0] > 0).float().mean()) > 0.73


def test_strength_goes_from_the_prior_to_the_tilt_and_beyond(rng):
    b = 0.7
    tilt = LatentTilt(WrappedModel(nn.Identity(), 1), nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten(0)))
    tilt.net[0].weight.data.fill_(-b)
    z = torch.randn(5, 1, generator=rng)
    assert torch.equal(ScaledTilt(tilt, 0).energy(z), torch.zeros(5))
    assert torch.equal(ScaledTilt(tilt, 1).potential(z), tilt.potential(z))
    for strength in (0.5, 1.5):
        found = SNIS(pool=100_000).draw(ScaledTilt(tilt, strength), 10, generator=rng).diagnostics
        # E = −b z: log Z = (λ b)²/2 and the effective share of a Gaussian shift is exp(−(λ b)²).
        assert found["log_z"] == pytest.approx((strength * b) ** 2 / 2, abs=4.9 * found["log_z_se"])
        assert found["ess"] == pytest.approx(math.exp(-((strength * b) ** 2)), rel=0.1)


class NoGradient(nn.Module):
    latent_dim = 2

    @torch.no_grad()
    def decode(self, z):
        return z + 0


BAD = {
    "sum": (lambda: Attribute(abs, {0: 0.5, 1: 0.6}), "shares that sum to 1"),
    "list": (lambda: Attribute(abs, [0.5, 0.5]), "attribute target: expected a mapping of each value to its share"),
    "names": (lambda: Attribute(abs, {0: 0.5, 1: 0.5}, ["a", "b"]), r"name: expected a string, got \['a', 'b'\]"),
    "no function": (lambda: Attribute("x > 0", {0: 0.5, 1: 0.5}), "attribute function: expected a function"),
    "no attribute": (lambda: fitted(["sign"]), "attributes: expected an Attribute or several, got str"),
    "one value": (lambda: Attribute(abs, {0: 1.0}), "at least two values"),
    "outside": (lambda: fitted(of(lambda x: x[:, 0].sign().int(), 0.5)), "target's keys 0, 1, got -1"),
    "logits": (lambda: fitted(of(lambda x: x, 0.5)), "rows of probabilities"),
    "columns": (lambda: fitted(Attribute(lambda x: x.softmax(1), {0: 0.5, 1: 0.2, 2: 0.3})), "a column for each"),
    "scalar": (lambda: fitted(of(lambda x: x.mean(), 0.5)), r"shape \(4096,\) or"),
    "never made": (lambda: fitted(of(lambda x: x[:, 0] > 40, 0.5)), "attribute 1, of which"),
    "too rare": (lambda: fitted(of(lambda x: x[:, 0] > 3.5, 0.9)), "100 effective draws"),
    "twice": (lambda: fitted([sign(0, 0.5), sign(0, 0.5)]), "under its own name"),
    "contradiction": (lambda: fitted([sign(0, 0.9), of(lambda x: x[:, 0] > 0, 0.1)]), "reach"),
    "no size": (lambda: WrappedModel(nn.Identity()), "latent_dim: expected a whole number"),
    "latent shape": (lambda: WrappedModel(nn.Identity(), 2, latent_shape=(3, 1)), "a shape of 2 numbers"),
    "training mode": (lambda: WrappedModel(nn.BatchNorm1d(2), 2), "evaluation mode, got BatchNorm1d"),
    "dictionary": (lambda: WrappedModel(lambda z: {"x": z}, 2), "a tensor of 2 items"),
    "latent size": (
        lambda: WrappedModel(nn.Linear(3, 5), 2),
        r"decoder: expected one that takes .* \(2, 2\), got R",
    ),
    "own latent size": (lambda: fitted(UP, Wrong()), "model.decode: expected one that takes a tensor"),
    "decoder fails": (lambda: WrappedModel(lambda z: z.colour, 2), "got AttributeError: 'Tensor' object has no"),
    "key": (lambda: WrappedModel(lambda z: {"x": z}, 2, key="y"), "key: expected one of 'x', got 'y'"),
    "key of a tensor": (
        lambda: WrappedModel(nn.Identity(), 2, key="y"),
        "key: expected one of the indices of a Tensor",
    ),
    "encoder fails": (
        lambda: encoding(lambda x: x @ torch.ones(3, 2)),
        r"encoder: expected one that takes .* \(2, 2\)",
    ),
    "encoder of distributions": (
        lambda: encoding(lambda x: (x, x)),
        r"encoder: expected codes of shape \(2, 2\), got tuple",
    ),
    "encoder of NaN": (lambda: encoding(lambda x: x / 0), "encoder: expected finite values"),
    "encoder's mode": (lambda: encoding(nn.BatchNorm1d(2)), "encoder: expected evaluation mode"),
    "no encoder": (lambda: PLAIN.encode(torch.zeros(1, 2)), "encoder: expected a module or function, got None"),
    "no decode": (lambda: check_model("model", nn.Identity()), "got Identity without both"),
    "strength": (lambda: ScaledTilt(tilt_attributes(PLAIN, sign(0, 0.6), generator=RNG), 1.6), "strength: expected"),
    "noise": (lambda: DataTilt(PLAIN, nn.Flatten(0), noise=True), "model: expected a likelihood of its data"),
    "gradient": (
        lambda: Langevin(n_steps=2).draw(fitted(UP, NoGradient()), 8, generator=RNG),
        "a differentiable decode",
    ),
}
RNG = torch.Generator().manual_seed(0)
UP = Attribute(lambda x: torch.stack([-x[:, 0], x[:, 0]], 1).softmax(1), {"-": 0.4, "+": 0.6})


class Wrong(nn.Linear):
    """A model whose codes are longer than it says."""

    latent_dim, decode = 2, nn.Linear.forward

    def __init__(self):
        super().__init__(3, 2)


def encoding(encoder):
    return WrappedModel(nn.Identity(), 2, encoder=encoder)


def of(function, share):
    return Attribute(function, {0: 1 - share, 1: share})


def fitted(attributes, model=PLAIN):
    return tilt_attributes(model, attributes, pool=20_000, generator=RNG)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
