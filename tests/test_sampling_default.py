"""Bayesian logistic regression of ISLR's Default: SGLD and ImproperSGLD over parameters, held against NUTS."""

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional as F

from latentebm.data.tabular import load_default
from latentebm.sampling import NUTS, optim
from tests.sampling_targets import gen

CHAINS = 64


class Posterior:
    """Potential of the weights, intercept first: N · mean loss + |w|² / 2·5²."""

    dim = 4

    def __init__(self, data):
        self.x = torch.cat([torch.ones(len(data.x_train), 1), data.x_train], 1)
        self.y = data.y_train.float()

    def sample_base(self, n, *, generator):
        return 5 * torch.randn(n, self.dim, generator=generator)

    def log_base(self, u):
        return -u.square().sum(1) / 50

    def energy(self, u, rows=slice(None)):
        loss = F.binary_cross_entropy_with_logits(u @ self.x[rows].T, self.y[rows].expand(len(u), -1), reduction="none")
        return len(self.x) * loss.mean(1)

    def potential(self, u, rows=slice(None)):
        return self.energy(u, rows) - self.log_base(u)

    def decode(self, u):
        return u


def path(posterior, optimizer, weights, steps, burn, batch=1750):
    """Run the chains, one a row of `weights`, on batches drawn without replacement; keep what follows `burn`."""
    kept, g = [], gen(7)
    for t in range(steps):
        rows = torch.randperm(len(posterior.x), generator=g)[:batch]
        optimizer.zero_grad()
        posterior.potential(weights, rows).sum().backward()
        optimizer.step()
        if t >= burn:
            kept.append(weights.detach().clone())
    return torch.stack(kept)


def accuracy(weights, data):
    x = torch.cat([torch.ones(len(data.x_test), 1), data.x_test], 1)
    mean = torch.sigmoid(x @ weights.flatten(0, -2).T).mean(1)
    return ((mean > 0.5).long() == data.y_test).float().mean().item()


def agrees(draws, exact):
    mean, sd = exact.mean(0), exact.std(0)
    flat = draws.flatten(0, 1)
    return bool(((flat.mean(0) - mean).abs() < 0.15 * sd).all()) and bool(((flat.std(0) / sd - 1).abs() < 0.2).all())


def test_split_is_stratified():
    data = load_default()
    assert abs(data.y_train.float().mean() - data.y_test.float().mean()) < 1e-3
    torch.testing.assert_close(data.x_train.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.std(0), torch.ones(3), atol=1e-3, rtol=0)


def test_posterior_of_sgld_is_that_of_nuts(monkeypatch):
    data = load_default()
    posterior = Posterior(data)
    nuts = NUTS(chains=2, warm_up=150).draw(posterior, 900, generator=gen(1))
    assert nuts.diagnostics["rhat"] < 1.05
    assert nuts.diagnostics["divergences"] == 0

    def sgld(steps=3000, burn=1000):
        weights = torch.nn.Parameter(torch.zeros(CHAINS, 4))
        optimizer = optim.SGLD([weights], a=0.0115, b=200.0, gamma=0.33, generator=gen(2))
        return path(posterior, optimizer, weights, steps, burn)

    draws = sgld()
    assert accuracy(draws[::100], data) >= 0.965
    assert agrees(draws, nuts.latent), draws.flatten(0, 1).std(0) / nuts.latent.std(0)
    # Planted fault: noise of standard deviation ε in place of variance ε, the wrong temperature.
    kernel = optim.kernels.SGLD
    monkeypatch.setattr(kernel, "scales", lambda k, t: (k.a * (k.b + t) ** -k.gamma / 2, k.a * (k.b + t) ** -k.gamma))
    assert not agrees(sgld(1500, 1000), nuts.latent)


def test_improper_sgld_classifies():
    data = load_default()
    weights = torch.nn.Parameter(torch.zeros(CHAINS, 4))
    optimizer = optim.ImproperSGLD([weights], alpha=1e-3, sigma=0.01, generator=gen(3))
    assert accuracy(path(Posterior(data), optimizer, weights, 800, 700), data) >= 0.965


def quadratic_run(weights, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * weights.square().sum()).backward()
        optimizer.step()


def test_state_dict_round_trip_continues_exactly(tmp_path):
    def fresh():
        weights = torch.nn.Parameter(torch.ones(5, 3))
        return weights, optim.SGLD([weights], a=0.1, gamma=0.5, generator=gen(4))

    weights, optimizer = fresh()
    quadratic_run(weights, optimizer, 7)
    held = weights.detach().clone()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    state = torch.load(tmp_path / "optimizer.pt")
    quadratic_run(weights, optimizer, 5)
    again, other = fresh()
    again.data.copy_(held)
    other.load_state_dict(state)
    quadratic_run(again, other, 5)
    assert torch.equal(weights, again)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_has_a_generator_of_its_own_in_the_same_state(duplicate):
    weights = torch.nn.Parameter(torch.ones(5, 3))
    optimizer = optim.ImproperSGLD([weights], alpha=0.1, sigma=0.3, generator=gen(4), foreach=True)
    quadratic_run(weights, optimizer, 3)
    again, other = duplicate((weights, optimizer))
    assert other.foreach is True
    quadratic_run(weights, optimizer, 4)
    assert not torch.equal(weights, again)  # nor did the copy move
    quadratic_run(again, other, 4)
    assert torch.equal(weights, again)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGLD([p], a=0.0, generator=gen()), "a: expected"),
        (lambda p: optim.SGLD([p], b=math.nan, generator=gen()), "b: expected"),
        (lambda p: optim.SGLD([p], temperature=-1.0, generator=gen()), "temperature: expected"),
        (lambda p: optim.ImproperSGLD([p], alpha=-1.0, sigma=0.1, generator=gen()), "alpha: expected"),
        (lambda p: optim.ImproperSGLD([p], alpha=1.0, sigma=-0.1, generator=gen()), "sigma: expected"),
        (lambda p: optim.SGLD([torch.ones(3).long()], generator=gen()), "params: expected floating"),
        (lambda p: optim.SGLD([p], generator=None), "generator: expected a torch.Generator, got NoneType"),
        (
            lambda p: optim.SGLD([p], generator=gen()).load_state_dict(torch.optim.SGD([p]).state_dict()),
            "the state of a torch.Generator",
        ),
        (
            lambda p: optim.SGLD([p], generator=gen()).load_state_dict(
                optim.ImproperSGLD([p], alpha=1.0, sigma=1.0, generator=gen()).state_dict()
            ),
            "settings of SGLD, got none of a, b, gamma, temperature",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(torch.nn.Parameter(torch.ones(3)))


def test_foreach_and_groups():
    ends = []
    for foreach in (False, True):
        a, b = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
        groups = [{"params": [a]}, {"params": [b], "sigma": 0.0, "alpha": 1.0}]
        optimizer = optim.ImproperSGLD(groups, alpha=0.5, sigma=0.3, generator=gen(5), foreach=foreach)
        for _ in range(3):
            optimizer.zero_grad()
            (0.5 * (a.square().sum() + b.square().sum())).backward()
            optimizer.step()
        ends.append((a.detach(), b.detach()))
        torch.testing.assert_close(b.detach(), torch.full((4,), 0.5**3))  # no noise in its group
    torch.testing.assert_close(ends[0], ends[1])


def test_a_bad_group_is_not_added():
    optimizer = optim.SGLD([torch.nn.Parameter(torch.ones(4))], generator=gen())
    for group in ({"params": [torch.nn.Parameter(torch.ones(4))], "a": -1.0}, {"params": [torch.ones(4).long()]}):
        with pytest.raises(ValueError, match=r"(a: expected|params: expected floating tensors, got torch.int64)"):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1


def check_gradient_noise():
    """SGLD with gradient noise of sd g on N(0, s²): s²(1 + ηg²/2)/(1 − η/2s²), η = ε/2."""
    epsilon, noise, chains, g = 0.4, 1.5, 100_000, gen(6)
    eta = epsilon / 2
    expected = (1 + eta * noise**2 / 2) / (1 - eta / 2)
    weights = torch.nn.Parameter(math.sqrt(expected) * torch.randn(chains, generator=g))
    optimizer = optim.SGLD([weights], a=epsilon, gamma=0.0, generator=g)
    for _ in range(30):
        weights.grad = weights.detach() + noise * torch.randn(chains, generator=g)
        optimizer.step()
    assert abs(weights.var().item() / expected - 1) < 4.9 * math.sqrt(2 / chains)


def test_gradient_noise_widens_by_the_closed_form(monkeypatch):
    check_gradient_noise()
    monkeypatch.setattr(optim.kernels.SGLD, "scales", lambda k, t: (k.a / 2, math.sqrt(2 * k.a)))  # noise √2 off
    with pytest.raises(AssertionError):
        check_gradient_noise()
