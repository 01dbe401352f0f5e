"""VAE, energy ensemble and tilt: identities that hold for any weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.energies import EnergyNet
from latentebm.models.saving import load_weights, save_weights
from latentebm.models.tilts import LatentTilt, ScaledTilt
from latentebm.models.vae import VAE


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7)])
def test_vae_shapes_gradients_and_loss(network, likelihood, shape, rng):
    vae = VAE(shape, 3, network=network, width=32, likelihood=likelihood)
    x = torch.rand(5, *shape, generator=rng)
    assert vae.decode(vae.encode(x)).shape == x.shape
    vae.loss(x, generator=rng).mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in vae.parameters())


@pytest.mark.parametrize("layers", [8, 2**17])  # all four images at once, or one after another
def test_loss_is_the_negative_elbo(layers, monkeypatch):
    """Against torch's own KL and log-likelihood, with the same noise."""
    monkeypatch.setattr("latentebm.models.vae.LAYERS", layers)
    vae, x = VAE((1, 6, 6), 2, width=16), torch.rand(4, 1, 6, 6)
    loss = vae.loss(x, generator=torch.Generator().manual_seed(3))
    q = vae.posterior(x)
    z = q.base_dist.loc + q.base_dist.scale * torch.randn(4, 2, generator=torch.Generator().manual_seed(3))
    prior = Independent(Normal(torch.zeros(4, 2), torch.ones(4, 2)), 1)
    expected = kl_divergence(q, prior) - vae.likelihood.log_prob(x, vae.decoder(z))
    torch.testing.assert_close(loss, expected)
    weighted = vae.loss(x, generator=torch.Generator().manual_seed(3), kl_weight=3.0)
    torch.testing.assert_close(weighted - loss, 2 * kl_divergence(q, prior))


def test_bernoulli_likelihood_sums_to_one():
    """Over all binary images of four pixels."""
    vae = VAE((1, 2, 2), 1, width=8)
    images = torch.tensor([[(i >> j) & 1 for j in range(4)] for i in range(16)], dtype=torch.float32).view(16, 1, 2, 2)
    logits = torch.randn(1, 1, 2, 2).expand(16, 1, 2, 2)
    assert vae.likelihood.log_prob(images, logits).exp().sum().item() == pytest.approx(1, rel=1e-5)


def test_posterior_draws_have_the_posterior_law(rng):
    vae = VAE((1, 4, 4), 2, width=8)
    x = torch.rand(1, 1, 4, 4).expand(20_000, 1, 4, 4)
    q = vae.posterior(x[:1]).base_dist
    z = (vae.encode(x, generator=rng) - q.loc) / q.scale
    assert z.mean(0).abs().max() < 4.9 / math.sqrt(len(z))
    assert (z.var(0) - 1).abs().max() < 4.9 * math.sqrt(2 / len(z))
    torch.testing.assert_close(vae.encode(x[:2]), q.loc.expand(2, 2))


def test_chunks_do_not_change_the_result():
    vae, z = VAE((1, 4, 4), 2, width=8), torch.randn(10, 2)
    torch.testing.assert_close(vae.decode(z, chunk=3), vae.decode(z))
    energy, many = EnergyNet(2, hidden=(2048,), members=2), torch.randn(3_000, 2)  # 1,024 points at once
    for parameter in energy.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    whole = energy.members(many).detach()
    with torch.no_grad():
        torch.testing.assert_close(energy.members(many), whole)


@pytest.mark.parametrize("call", ["posterior", "decode"])
def test_wrong_shapes_are_named(call):
    with pytest.raises(ValueError, match=r"expected shape \(N, .*got \(2, 7\)"):
        getattr(VAE((1, 4, 4), 2, width=8), call)(torch.zeros(2, 7))


def test_ensemble_is_its_members_apart(rng):
    energy = EnergyNet(3, hidden=(8,), members=4, generator=rng)
    for parameter in energy.parameters():
        torch.nn.init.normal_(parameter)
    z = torch.randn(5, 3)
    for m in range(4):
        single = EnergyNet(3, hidden=(8,))
        single.load_state_dict({k: v[m : m + 1] for k, v in energy.state_dict().items()})
        torch.testing.assert_close(energy.members(z)[m], single(z))
    torch.testing.assert_close(energy(z), energy.members(z).mean(0))
    own = torch.randn(4, 5, 3)
    torch.testing.assert_close(energy.members(own)[2], energy.members(own[2])[2])


def check_closed_gradient(limit, transform, rng, strength=None, kind=EnergyNet):
    """A tilt's closed-form potential and gradient are those of automatic differentiation."""
    energy = kind(3, hidden=(8, 6), members=4, limit=limit)
    for value in energy.state_dict().values():
        torch.nn.init.normal_(value)
    tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 3), energy, transform)
    if strength is not None:
        tilt = ScaledTilt(tilt, strength)
    z = torch.randn(7, 3, generator=rng, requires_grad=True)
    expected = tilt.potential(z)
    u, grad = tilt.value_and_grad(z)
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), z)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [None, 0.7])
@pytest.mark.parametrize("transform", [None, torch.sinh])
@pytest.mark.parametrize("strength", [None, 0.0, 1.3])
def test_closed_gradient(limit, transform, strength, rng):
    check_closed_gradient(limit, transform, rng, strength)


class Steeper(EnergyNet):
    def value_and_grad(self, z):
        value, grad = super().value_and_grad(z)
        return value, 1.01 * grad


def test_closed_gradient_faults(rng):
    for strength in (None, 1.3):
        with pytest.raises(AssertionError):
            check_closed_gradient(0.7, None, rng, strength, Steeper)


def test_tilt_signs_and_base_law(rng):
    tilt = LatentTilt(VAE((1, 4, 4), 2, width=8), energy := _Quadratic())
    z = torch.randn(6, 2, generator=rng)
    exact = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
    torch.testing.assert_close(tilt.log_base(z), exact)
    torch.testing.assert_close(tilt.potential(z), energy(z) - exact)
    assert tilt.sample_base(7, generator=rng).shape == (7, 2)


class _Quadratic(torch.nn.Module):
    def forward(self, z):
        return z.square().sum(1)


def test_weights_round_trip_and_are_no_pickle(tmp_path):
    vae = VAE((1, 4, 4), 2, width=8)
    path = save_weights(tmp_path / "v.safetensors", vae)
    other = VAE((1, 4, 4), 2, width=8)
    load_weights(path, other)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), other.parameters(), strict=True))
    assert path.read_bytes()[8:9] == b"{"  # a safetensors file opens with its JSON header
