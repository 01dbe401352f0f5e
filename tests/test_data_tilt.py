"""Tilts in data space against closed forms of a linear-Gaussian generator, through every sampler."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from latentebm.models.data_energies import DataEnergy
from latentebm.models.data_tilts import DataTilt, ElboTilt
from latentebm.models.likelihoods import Bernoulli, Gaussian
from latentebm.models.vae import VAE
from latentebm.sampling import MALA, NUTS, PMC, SNIS, ULA, Langevin
from latentebm.training.fit_vae import fit_vae

Z_ALPHA = 4.9  # two-sided normal quantile at 1e-6
W = torch.tensor([[0.9, 0.3], [-0.4, 0.7], [0.2, -0.6]])
SHIFT, SCALE = torch.tensor([0.3, -0.2, 0.1]), 0.4
A = torch.tensor([[0.8, 0.2, 0.0], [0.2, 0.5, 0.1], [0.0, 0.1, 0.6]])
B = torch.tensor([0.7, -0.3, 0.4])


class Linear(Gaussian):
    """x = Wz + c + s·noise: the mean is the decoder's output itself."""

    def mean(self, parameter):
        return parameter


def linear_vae():
    """A VAE of images (3, 1, 1) whose marginal and posterior are known normal laws."""
    vae = VAE((3, 1, 1), 2, width=8, likelihood="gaussian")
    vae.likelihood = Linear(SCALE)
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 4)
    posterior = torch.linalg.inv(torch.eye(2) + W.T @ W / SCALE**2)
    # The true posterior has correlated codes; rotating them makes it diagonal, as the encoder's must be.
    turn = torch.linalg.eigh(posterior).eigenvectors
    variance = (turn.T @ posterior @ turn).diagonal()
    gain = turn.T @ posterior @ W.T / SCALE**2
    decoder.weight.data, decoder.bias.data = W @ turn, SHIFT.clone()
    encoder.weight.data = torch.cat([gain, torch.zeros(2, 3)])
    encoder.bias.data = torch.cat([-gain @ SHIFT, variance.log()])
    vae.decoder = nn.Sequential(decoder, nn.Unflatten(1, (3, 1, 1)))
    vae.encoder = nn.Sequential(nn.Flatten(), encoder)
    return vae.requires_grad_(False)


class Quadratic(nn.Module):
    def forward(self, x):
        x = x.flatten(1)
        return 0.5 * ((x @ A) * x).sum(1) - x @ B


def closed_form(covariance):
    """log Z, mean and covariance of N(SHIFT, covariance) tilted by ½x'Ax − b'x."""
    precision = torch.linalg.inv(covariance)
    tilted = torch.linalg.inv(precision + A)
    mean = tilted @ (precision @ SHIFT + B)
    log_z = 0.5 * (mean @ (precision + A) @ mean - SHIFT @ precision @ SHIFT)
    log_z = log_z + 0.5 * (torch.logdet(tilted) - torch.logdet(covariance))
    return float(log_z), mean, tilted


NOISY = closed_form(W @ W.T + SCALE**2 * torch.eye(3))
# Without noise x lies on a plane: its law is tilted in the two codes.
PLANE = torch.linalg.inv(torch.eye(2) + W.T @ A @ W)
PLANE_MEAN = SHIFT + W @ (PLANE @ W.T @ (B - A @ SHIFT))


def deviation(x, mean, covariance, effective):
    """Largest distance of the draws' mean and variances from the law's, in standard errors."""
    x = x.flatten(1).double()
    by_mean = (x.mean(0) - mean).abs() / (covariance.diagonal() / effective).sqrt()
    by_variance = (x.var(0) / covariance.diagonal() - 1).abs() / math.sqrt(2 / effective)
    return float(torch.cat([by_mean, by_variance]).max())


@pytest.fixture(scope="module")
def tilt():
    return DataTilt(linear_vae(), Quadratic(), noise=True)


def test_log_z_and_moments_in_closed_form(tilt, rng):
    draws = SNIS(pool=200_000).draw(tilt, 20_000, generator=rng)
    log_z, mean, covariance = NOISY
    assert abs(draws.diagnostics["log_z"] - log_z) < Z_ALPHA * draws.diagnostics["log_z_se"]
    assert deviation(draws.x, mean, covariance, 20_000) < Z_ALPHA


def test_means_alone_lie_on_the_decoders_plane(rng):
    draws = SNIS(pool=200_000).draw(DataTilt(linear_vae(), Quadratic()), 20_000, generator=rng)
    assert draws.latent.shape[1] == 2
    assert deviation(draws.x, PLANE_MEAN, W @ PLANE @ W.T, 20_000) < Z_ALPHA
    # The plane's law is not the marginal's: noise left out is caught.
    assert deviation(draws.x, *NOISY[1:], 20_000) > Z_ALPHA


@pytest.mark.parametrize(
    ("sampler", "effective"),
    [
        (Langevin(n_steps=60), 2000),
        (PMC(MALA(0.5), n_steps=60, size=2000), 2000),
        (NUTS(chains=1, warm_up=40), 30),  # 150 draws of one chain, worth at least a fifth of that
    ],
    ids=["mala", "pmc", "nuts"],
)
def test_chains_in_the_joint_base_space(tilt, sampler, effective, rng):
    n = 150 if isinstance(sampler, NUTS) else 2000
    draws = sampler.draw(tilt, n, generator=rng)
    assert deviation(draws.x, *NOISY[1:], effective) < Z_ALPHA


def langevin_in_x(tilt, rng, **fault):
    """ULA by hand over the ELBO, with faults to plant: drift sign, noise scale."""
    sign, noise = fault.get("sign", 1.0), fault.get("noise", 1.0)
    seen, step = ElboTilt(tilt, draws=2, generator=rng), 0.01
    u = seen.sample_base(4000, generator=rng)
    for _ in range(150):
        u = u.requires_grad_()
        (grad,) = torch.autograd.grad(seen.potential(u).sum(), u)
        u = u.detach() - sign * step * grad + noise * math.sqrt(2 * step) * torch.randn(u.shape, generator=rng)
    return u


def test_the_bound_is_the_density_of_a_linear_generator(tilt, rng):
    seen = ElboTilt(tilt, generator=rng)
    x = seen.sample_base(50, generator=rng)
    exact = torch.distributions.MultivariateNormal(SHIFT, W @ W.T + SCALE**2 * torch.eye(3)).log_prob(x)
    gap = seen.log_base(x) - exact
    # Eight draws leave a constant of their noise's spread, which no chain feels.
    torch.testing.assert_close(gap, gap.mean().expand(50), atol=1e-4, rtol=0)
    assert gap.mean().abs() < 1


def test_langevin_in_x_meets_the_closed_form(tilt, rng):
    seen = ElboTilt(tilt, draws=2, generator=rng)
    draws = Langevin(kernel=ULA(0.005), n_steps=300).draw(seen, 2000, generator=rng)
    # ULA widens the narrowest direction, of variance v, by 1/(1 − η/2v): here below four standard errors.
    assert deviation(draws.x, *NOISY[1:], 2000) < Z_ALPHA + 2
    assert torch.equal(draws.x.flatten(1), draws.latent)


@pytest.mark.parametrize("fault", [{"noise": 0.0}, {"noise": 2.0**0.5}, {"sign": -1.0}])
def test_wrong_noise_or_sign_in_x_is_caught(tilt, rng, fault):
    found = deviation(langevin_in_x(tilt, rng, **fault), *NOISY[1:], 4000)
    assert not found < Z_ALPHA + 2


def test_a_flipped_energy_is_caught(rng):
    class Flipped(Quadratic):
        def forward(self, x):
            return -0.2 * super().forward(x)

    draws = SNIS(pool=100_000).draw(DataTilt(linear_vae(), Flipped(), noise=True), 5000, generator=rng)
    assert deviation(draws.x, *NOISY[1:], 5000) > Z_ALPHA


def test_observations_have_the_likelihoods_law(rng):
    mean = torch.tensor([0.1, 0.5, 0.9]).repeat(100_000, 1)
    noise = torch.randn(mean.shape, generator=rng)
    on = Bernoulli().observe(mean, noise)
    assert set(on.unique().tolist()) == {0.0, 1.0}
    spread = (mean[0] * (1 - mean[0]) / len(mean)).sqrt()
    assert ((on.mean(0) - mean[0]).abs() < Z_ALPHA * spread).all()
    seen = Gaussian(0.2).observe(mean, noise)
    assert ((seen - mean).std(0) / 0.2 - 1).abs().max() < Z_ALPHA * math.sqrt(0.5 / len(mean))


def test_metropolis_stays_exact_through_bernoulli_pixels(rng):
    """Two pixels, energy of their sum: the shares of 0, 1 and 2 lit pixels are known."""
    vae = VAE((2, 1, 1), 1, width=4)
    vae.decoder = nn.Sequential(nn.Linear(1, 2), nn.Unflatten(1, (2, 1, 1))).requires_grad_(False)
    vae.decoder[0].weight.data.zero_(), vae.decoder[0].bias.data.zero_()
    tilt = DataTilt(vae, lambda_module(lambda x: x.flatten(1).sum(1)), noise=True)
    lit = Langevin(n_steps=60).draw(tilt, 4000, generator=rng).x.flatten(1).sum(1)
    weight = torch.tensor([1.0, 2 * math.exp(-1), math.exp(-2)])
    share = weight / weight.sum()
    found = torch.stack([(lit.round() == k).float().mean() for k in range(3)])
    assert ((found - share).abs() < Z_ALPHA * (share * (1 - share) / 4000).sqrt()).all()


def lambda_module(function):
    module = nn.Module()
    module.forward = function
    return module


def test_the_gaussian_scale_is_learned(rng):
    images = (0.5 + 0.15 * torch.randn(2000, 1, 8, 8, generator=rng)).clamp(0, 1).mul(255).to(torch.uint8)
    vae = VAE((1, 8, 8), 2, width=16, likelihood="gaussian")
    fit_vae(vae, images, epochs=15, batch_size=128, lr=0.02, precision="fp32", generator=rng)
    assert vae.likelihood.scale.item() == pytest.approx(0.15, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 10), (1, 3, 3), (5,)])
def test_data_energies_of_any_shape(shape, rng):
    energy = DataEnergy(shape, members=2, limit=4.0, generator=rng)
    for p in energy.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=rng)
    x = torch.rand(6, *shape, generator=rng)
    found = energy.members(x)
    assert found.shape == (2, 6)
    assert found.abs().max() <= 4
    torch.testing.assert_close(energy.members(torch.stack([x, x])), found)
    again = DataEnergy.from_config(energy.config)
    again.load_state_dict(energy.state_dict())
    torch.testing.assert_close(again(x), energy(x))
    with pytest.raises(ValueError, match="x: expected shape"):
        energy(torch.rand(6, *shape, 2))


@pytest.mark.parametrize(
    ("likelihood", "noise", "draws", "message"),
    [
        ("bernoulli", True, 8, "likelihood: expected Gaussian"),
        ("gaussian", False, 8, "tilt: expected a DataTilt with noise=True"),
        ("gaussian", True, 3, "draws: expected an even number"),
    ],
)
def test_bounds_without_a_density_are_refused(likelihood, noise, draws, message, rng):
    vae = VAE((1, 4, 4), 2, width=4, likelihood=likelihood)
    with pytest.raises(ValueError, match=message):
        ElboTilt(DataTilt(vae, DataEnergy((1, 4, 4)), noise=noise), draws=draws, generator=rng)
