"""Tilts made of tilts against closed forms: products of Gaussians, attributes on top, opposites by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.composition import NegatedTilt, ProductTilt, is_bounded
from latentebm.models.data_tilts import DataTilt, ElboTilt
from latentebm.models.energies import EnergyNet
from latentebm.models.features import Attribute
from latentebm.models.tilts import LatentTilt, ScaledTilt
from latentebm.sampling import MALA, SNIS, ULA, Langevin
from latentebm.sampling.compiled.perceptrons import compiled_form
from latentebm.tilting.attributes import tilt_attributes
from tests.sampling_targets import A, B, assert_mean, gen
from tests.test_data_tilt import SCALE, SHIFT, linear_vae

PLANE, LINE = WrappedModel(nn.Identity(), 2), WrappedModel(nn.Identity(), 1)


class Quadratic(nn.Module):
    """E = ½x'Ax − b'x of flat points."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        x = x.flatten(1)
        return 0.5 * ((x @ self.a) * x).sum(1) - x @ self.b


def gaussian(precision, shift):
    """log Z, mean and covariance of N(0, I) tilted by ½u'(P − I)u − s'u."""
    covariance = torch.linalg.inv(precision)
    return 0.5 * (shift @ covariance @ shift - torch.logdet(precision)), covariance @ shift, covariance


def check_gaussian(tilt, precision, shift, seed=0):
    log_z, mean, covariance = gaussian(precision, shift)
    draws = SNIS(pool=200_000).draw(tilt, 4_000, generator=gen(seed))
    assert abs(draws.diagnostics["log_z"] - log_z) < 4.9 * draws.diagnostics["log_z_se"]
    for u in (draws.latent, Langevin(kernel=MALA(0.4), n_steps=150).draw(tilt, 4_000, generator=gen(seed)).latent):
        assert_mean(u, mean)
        centred = u - mean
        assert_mean((centred.unsqueeze(2) * centred.unsqueeze(1)).flatten(1), covariance.flatten())


def pair():
    return LatentTilt(PLANE, Quadratic(A, B)), LatentTilt(PLANE, Quadratic(2 * A.flip(0, 1), -B.flip(0)))


def test_a_product_of_gaussian_tilts():
    first, second = pair()
    precision = torch.eye(2) + A + A.flip(0, 1)
    check_gaussian(first & second * 0.5, precision, B - 0.5 * B.flip(0))
    check_gaussian(0.5 * second & first & first * 0.0, precision, B - 0.5 * B.flip(0), seed=1)


class OneOnly(ProductTilt):
    def energy(self, u):
        return self.parts[0].energy(u)


class BaseTwice(ProductTilt):
    value_and_grad = None

    def energy(self, u):
        return super().energy(u) - self.log_base(u)


@pytest.mark.parametrize("faulty", [OneOnly, BaseTwice])
def test_a_faulty_product_is_caught(faulty):
    first, second = pair()
    with pytest.raises(AssertionError):
        check_gaussian(faulty(first, second * 0.5), torch.eye(2) + A + A.flip(0, 1), B - 0.5 * B.flip(0))


def test_latent_and_noisy_data_tilts_together():
    vae, a, b = linear_vae(), 0.6 * torch.eye(3), torch.tensor([0.7, -0.3, 0.4])
    latent = LatentTilt(vae, Quadratic(A, B))
    data = DataTilt(vae, Quadratic(a, b), noise=True)
    # x = Vu + c with V = (W, sI): the energy of x is a quadratic of u.
    v = torch.cat([vae.decoder[0].weight, SCALE * torch.eye(3)], 1)
    shift = v.T @ (b - a @ SHIFT) + torch.cat([B, torch.zeros(3)])
    precision = torch.eye(5) + v.T @ a @ v
    precision[:2, :2] += A
    constant = 0.5 * SHIFT @ a @ SHIFT - b @ SHIFT
    for tilt in (latent & data, data & latent):
        log_z, mean, _ = gaussian(precision, shift)
        found = SNIS(pool=200_000).draw(tilt, 4_000, generator=gen())
        assert abs(found.diagnostics["log_z"] - (log_z - constant)) < 4.9 * found.diagnostics["log_z_se"]
        assert_mean(found.latent, mean)
        assert_mean(tilt.code(found.latent), mean[:2])
        assert tilt.decode(found.latent).shape == (4_000, 3, 1, 1)
        u = found.latent[:9].requires_grad_()
        torch.testing.assert_close(tilt.value_and_grad(u)[1], torch.autograd.grad(tilt.potential(u).sum(), u)[0])


def test_an_attribute_on_top_of_a_reference():
    """N(m, 1) with its halves reweighted to odds κ: P(z > 0) = κΦ(m) / (κΦ(m) + Φ(−m))."""
    m, odds = 0.6, 0.9 / 0.1
    reference = LatentTilt(LINE, Quadratic(torch.zeros(1, 1), torch.tensor([m])))
    sign = Attribute(lambda x: x[:, 0] > 0, {False: 0.1, True: 0.9}, "sign")
    attribute = tilt_attributes(LINE, sign, pool=400_000, tolerance=1e-4, generator=gen())
    theta = attribute.net.energy.theta
    odds = math.exp(theta[1] - theta[0])
    upper, lower = (0.5 * math.erfc(-s * m / math.sqrt(2)) for s in (1, -1))
    for tilt, kappa in ((attribute & reference, odds), (~attribute & reference, 1 / odds)):
        expected = kappa * upper / (kappa * upper + lower)
        draws = SNIS(pool=200_000).draw(tilt, 20_000, generator=gen(1))
        assert_mean((draws.latent[:, 0] > 0).double(), expected)


class Bounded(nn.Module):
    """E = L tanh(z)."""

    limit = 1.5

    def forward(self, z):
        return self.limit * torch.tanh(z[:, 0])


def check_negated(tilt, energy):
    """Mean and log Z of N(0, 1) tilted by e^{+E}, by quadrature."""
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    log_p = energy(z) - 0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    log_z = torch.logsumexp(log_p, 0) + math.log(18 / 20_000)
    mean = (log_p.softmax(0) * z).sum()
    draws = SNIS(pool=200_000).draw(tilt, 4_000, generator=gen())
    assert abs(draws.diagnostics["log_z"] - log_z) < 4.9 * draws.diagnostics["log_z_se"]
    for u in (draws.latent, Langevin(kernel=MALA(0.5), n_steps=150).draw(tilt, 4_000, generator=gen()).latent):
        assert_mean(u[:, 0], mean)


def test_the_opposite_of_a_bounded_tilt():
    tilt = LatentTilt(LINE, Bounded())
    check_negated(~tilt, lambda z: 1.5 * torch.tanh(z))
    check_negated(~(tilt * 0.5), lambda z: 0.75 * torch.tanh(z))
    check_negated(~~~tilt, lambda z: 1.5 * torch.tanh(z))
    with pytest.raises(AssertionError):
        check_negated(tilt, lambda z: 1.5 * torch.tanh(z))


def filled(limit=2.0, seed=0):
    energy = EnergyNet(2, hidden=(8, 6), members=3, limit=limit)
    for i, value in enumerate(energy.parameters()):
        nn.init.normal_(value, generator=gen(seed + i))
    return energy


def composed():
    first, second = (LatentTilt(PLANE, filled(seed=s), torch.sinh) for s in (0, 9))
    quadratic = LatentTilt(PLANE, Quadratic(A, B))
    return [first & second, ~first, ~(first & second * 0.7) * 1.2, first & quadratic, NegatedTilt(first, bound=9.0)]


@pytest.mark.parametrize("case", range(5))
def test_gradients_are_those_of_the_potential(case):
    tilt = composed()[case]
    z = torch.randn(30, 2, generator=gen(), requires_grad=True)
    expected = tilt.potential(z)
    slope = torch.autograd.grad(expected.sum(), z)[0]
    fast = compiled_form(tilt) or tilt
    for form in (tilt, fast):
        value, grad = form.value_and_grad(z.detach())
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-4)
    drawn = [
        Langevin(kernel=ULA(0.05), n_steps=10, compile=c).draw(tilt, 50, generator=gen(2)).latent for c in (False, None)
    ]
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-3, rtol=1e-3)


class Cubic(LatentTilt):
    def energy(self, u):
        return u.pow(3).sum(1)


def test_what_is_bounded():
    net, free = filled(), filled(limit=None)
    latent, open_ended = LatentTilt(PLANE, net), LatentTilt(PLANE, free)
    assert is_bounded(latent & ~latent * 0.5)
    assert not is_bounded(latent & open_ended)
    assert not is_bounded(LatentTilt(PLANE, net, lambda e: (e + 2).log()))
    assert not is_bounded(Cubic(PLANE, net))
    assert is_bounded(DataTilt(PLANE, Bounded()) * 0.5)
    assert set(ScaledTilt(latent, 0.5).state_dict()) == {f"tilt.{k}" for k in latent.state_dict()}


class Wide(LatentTilt):
    def log_base(self, u):
        return super().log_base(u / 2)


NOISY = DataTilt(linear_vae(), Quadratic(torch.eye(3), torch.zeros(3)), noise=True)
BAD = {
    "no tilt": (lambda: pair()[0] & 3, "tilt: expected a tilt on both sides of &, got int"),
    "model": (
        lambda: pair()[0] & LatentTilt(WrappedModel(nn.Identity(), 2), Bounded()),
        "tilt: expected tilts of one and the same model object",
    ),
    "base": (
        lambda: ElboTilt(NOISY, generator=gen()) & LatentTilt(NOISY.model, Bounded()),
        r"tilt: expected base dimensions that are equal, or one the code's, got 3 and 2",
    ),
    "wide base": (
        lambda: pair()[0] & Wide(PLANE, Bounded()),
        "tilt: expected one base distribution, got two different",
    ),
    "unbounded": (lambda: ~pair()[0], "tilt: expected an energy with a known upper bound, got LatentTilt of Quadratic"),
    "product": (lambda: ~(pair()[0] & pair()[1]), "tilt: expected an energy with a known upper bound, got ProductTilt"),
    "too low a bound": (
        lambda: NegatedTilt(pair()[0], bound=0.1).energy(torch.full((1, 2), 9.0)),
        "bound: expected energies up to 0.1, got 81.45",
    ),
    "bound": (lambda: NegatedTilt(pair()[0], bound=math.nan), "bound: expected a number"),
    "strength": (lambda: pair()[0] * 1.6, r"strength: expected a number in \[0, 1.5\], got 1.6"),
    "negative": (lambda: -0.5 * pair()[0], r"strength: expected a number in \[0, 1.5\], got -0.5"),
    "text": (lambda: pair()[0] * "half", "strength: expected a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
