"""Bounds, likelihoods, MIWAE and not-MIWAE against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, MultivariateNormal, Normal, StudentT
from torch.nn import functional as F

from latentebm.missing import impute
from latentebm.missing.bound import Terms, iwae_bound, nested_bounds
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.miwae import MIWAE, MissingModel
from latentebm.missing.mixed_likelihoods import MIN_SCALE, MixedLikelihood

D, LATENT = 5, 2


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def ppca():
    """A MIWAE whose decoder is probabilistic PCA with known parameters, and rows with missing cells."""
    torch.manual_seed(4)
    model = MIWAE(["gaussian"] * D, LATENT, width=16, decoder="linear").double()
    g = rng(1)
    with torch.no_grad():
        model.decoder.mean.weight.copy_(torch.randn(D, LATENT, generator=g, dtype=torch.float64))
        model.decoder.mean.bias.copy_(torch.randn(D, generator=g, dtype=torch.float64))
    x = model.sample(torch.randn(20, LATENT, generator=g, dtype=torch.float64), generator=g)
    mask = (torch.rand(20, D, generator=g) < 0.6).double()
    mask[0] = 0
    mask[1] = 1
    return model, x, mask


def exact(model, x, seen):
    """log p(x_obs), and the exact mean of the whole row and of z given x_obs, for one row."""
    W, b = model.decoder.mean.weight.detach(), model.decoder.mean.bias.detach()
    variance = (F.softplus(model.decoder.raw_scale.detach()) + MIN_SCALE) ** 2
    Wo = W[seen]
    precision = torch.eye(LATENT).double() + Wo.T @ Wo / variance
    mean = torch.linalg.solve(precision, Wo.T @ (x[seen] - b[seen]) / variance)
    covariance = Wo @ Wo.T + variance * torch.eye(int(seen.sum()))
    log_p = MultivariateNormal(b[seen], covariance).log_prob(x[seen]) if seen.any() else torch.tensor(0.0)
    return log_p, W @ mean + b, MultivariateNormal(mean, precision_matrix=precision)


def test_bound_is_exact_with_the_exact_posterior(ppca):
    model, x, mask = ppca
    for row, seen in zip(x, mask.bool(), strict=True):
        log_p, _, posterior = exact(model, row, seen)
        torch.manual_seed(0)
        z = posterior.sample((7,))
        cells = model.likelihood.log_prob(row, model.decoder(z))
        prior = Normal(0.0, 1.0).log_prob(z).sum(-1)
        weight = Terms(z, (cells * seen).sum(-1), prior, posterior.log_prob(z), torch.zeros(7), z, z).log_weight
        assert torch.allclose(weight, log_p.expand(7).double(), atol=1e-9)
        assert iwae_bound(weight).item() == pytest.approx(log_p.item(), abs=1e-9)


def test_bound_rises_with_k_to_the_exact_log_likelihood(ppca):
    model, x, mask = ppca
    with torch.no_grad():
        weight = model.terms(x, mask, 2**15, generator=rng(2)).log_weight
    log_p = torch.stack([exact(model, row, seen)[0] for row, seen in zip(x, mask.bool(), strict=True)])
    bounds = torch.stack([nested_bounds(weight, 2**j) for j in range(0, 16, 3)])
    assert (bounds.diff(dim=0) >= -1e-12).all()
    assert (bounds[-1] - bounds[0]).mean() > 0.1
    # E exp(bound) = p(x): the mean weight is unbiased, so its own error says how close the bound must be.
    ratio = (weight - log_p).exp()
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - 1).abs() < 6 * error).all()
    # The ELBO (k = 1) stays below in expectation.
    assert (bounds[0] < log_p + 6 * weight.std(0) / math.sqrt(len(weight))).all()


def test_imputation_is_the_exact_conditional_mean(ppca):
    model, x, mask = ppca
    done = impute(model, x, mask, draws=20_000, multiple=400, generator=rng(3))
    means = torch.stack([exact(model, row, seen)[1] for row, seen in zip(x, mask.bool(), strict=True)])
    free = ~mask.bool()
    spread = x.std() * 5
    reliable = done.ess * 20_000 > 200
    tolerance = (spread / (done.ess * 20_000).sqrt()).unsqueeze(1).expand_as(x)
    assert reliable.sum() >= 10
    assert ((done.x - means).abs() < tolerance)[free & reliable.unsqueeze(1)].all()
    assert torch.equal(done.x[~free], x[~free])
    assert (done.draws == x)[:, ~free].all()
    # Drawn cells vary around the same mean, with at least the observation noise.
    noise = (F.softplus(model.decoder.raw_scale.detach()) + MIN_SCALE).item()
    off = (done.draws.mean(0) - means).abs() < 6 * done.draws.std(0) / math.sqrt(100)
    assert off[free & reliable.unsqueeze(1)].float().mean() > 0.95
    assert done.draws.std(0)[free].mean() > 0.9 * noise


def test_values_behind_the_mask_are_never_read(ppca):
    model, x, mask = ppca
    hidden = torch.where(mask.bool(), x, torch.full_like(x, math.nan))
    for a, b in zip(
        model.terms(x, mask, 4, generator=rng()), model.terms(hidden, mask, 4, generator=rng()), strict=True
    ):
        assert torch.equal(a, b)


def test_completed_rows_keep_what_was_seen(ppca):
    model, x, mask = ppca
    completed = model.terms(x, mask, 4, complete=True, generator=rng()).completed
    assert torch.equal(completed[:, mask.bool()], x[mask.bool()].expand(4, -1))
    assert (completed[:, ~mask.bool()].std(0) > 0).all()


def test_likelihoods_match_torch_and_their_samples():
    families = ["student_t", ("categorical", 3), "gaussian", "bernoulli", ("categorical", 3), "gaussian"]
    like = MixedLikelihood(families)
    p = torch.randn(like.n_parameters, generator=rng()).double()
    # Groups: the t, both categoricals, both Gaussians, the Bernoulli; numbers of a group lie parameter by parameter.
    t, c, n, b = p[:3], p[3:9].reshape(3, 2), p[9:13].reshape(2, 2), p[13]
    scale = lambda raw: F.softplus(raw) + MIN_SCALE  # noqa: E731
    numbers = [Normal(n[0, j], scale(n[1, j])) for j in range(2)]
    classes = [Categorical(logits=c[:, j]) for j in range(2)]
    each = [StudentT(3 + F.softplus(t[2]), t[0], scale(t[1])), classes[0], numbers[0]]
    each += [Bernoulli(logits=b), classes[1], numbers[1]]
    x = torch.tensor([0.3, 2.0, -0.2, 1.0, 0.0, 1.5]).double()
    assert like.log_prob(x, p) == pytest.approx(torch.stack([p.log_prob(v) for p, v in zip(each, x, strict=True)]))
    assert torch.equal(like.point(like.features(x)), x)
    drawn = like.sample(p.expand(100_000, -1), rng(4))
    mean = like.mean(p)
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - mean).abs() < 5.5 * error + 1e-9).all()
    # Student's t: variance s² ν/(ν − 2), four moments too few for a tight bound.
    df = 3 + F.softplus(t[2])
    values = drawn[:, like.feature_column == 0].squeeze(1)
    assert values.std().item() == pytest.approx((scale(t[1]) * (df / (df - 2)).sqrt()).item(), rel=0.05)


@pytest.mark.parametrize("kind", ["self-masking", "self-masking-known", "agnostic"])
def test_missing_model_formulas(kind):
    like = MixedLikelihood(["gaussian", ("categorical", 2), "gaussian"])
    model = MissingModel(kind, like, [-1, 1, 1] if kind == "self-masking-known" else None)
    with torch.no_grad():
        model.weight.copy_(torch.randn(model.weight.shape, generator=rng()))
        model.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    features, mask = torch.randn(4, like.n_features, generator=rng(1)), torch.tensor([[1.0, 0, 1]])
    full, column = model.weight, like.feature_column
    if kind != "agnostic":
        signed = F.softplus(full) * torch.tensor([-1.0, 1, 1])[column] if kind == "self-masking-known" else full
        full = torch.zeros(like.n_features, 3)
        full[torch.arange(like.n_features), column] = signed
    expected = Bernoulli(logits=model.bias - features @ full).log_prob(mask.expand(4, 3)).sum(-1)
    assert torch.allclose(model.log_prob(mask, features), expected, atol=1e-5)


@pytest.mark.parametrize("likelihood", [MixedLikelihood])
def test_not_miwae_imputes_the_mean_of_what_is_lost(likelihood):
    # One column x ~ N(0, s²) whatever the code, lost with probability sigmoid(3 x): E[x | lost] by a fine sum.
    model = MIWAE(["gaussian"], 1, width=4, decoder="linear", missing_model="self-masking")
    model.likelihood = likelihood(["gaussian"])
    with torch.no_grad():
        for parameter in (*model.decoder.mean.parameters(), model.missing.bias):
            parameter.zero_()
        model.missing.weight.fill_(3.0)
    scale = (F.softplus(model.decoder.raw_scale) + MIN_SCALE).item()
    x = torch.linspace(-8 * scale, 8 * scale, 10_001)
    lost = (-0.5 * (x / scale) ** 2).exp() * torch.sigmoid(3 * x)
    expected = ((x * lost).sum() / lost.sum()).item()
    done = impute(model, torch.zeros(1, 1), torch.zeros(1, 1), draws=50_000, generator=rng())
    assert expected > 0.3
    assert abs(done.x.item() - expected) < 6 * scale / math.sqrt(50_000 * done.ess.item())


def test_not_miwae_learns_the_mechanism_and_lifts_the_imputation():
    # Two correlated columns, the first self-masked above 0: blind imputation pulls towards what is seen.
    g = np.random.default_rng(0)
    z = g.normal(size=1500)
    x = torch.tensor(np.stack([z, z, z], 1) + 0.5 * g.normal(size=(1500, 3)), dtype=torch.float32)
    mask = torch.ones_like(x)
    mask[:, 0] = (x[:, 0] <= 0).float()
    gone = mask[:, 0] == 0
    errors = {}
    for missing in (None, "self-masking-known"):
        torch.manual_seed(0)
        model = MIWAE(["gaussian"] * 3, 1, width=32, decoder="linear", missing_model=missing)
        fit_miwae(model, x, mask, MIWAERecipe(k=10, steps=800, lr=0.01, batch_size=128), generator=rng())
        done = impute(model, x, mask, draws=500, generator=rng())
        errors[missing] = (done.x - x)[gone, 0].square().mean().sqrt().item()
    assert errors["self-masking-known"] < 0.8 * errors[None]
    # Masking rises with the value and the middle lies near 0, where it was put.
    assert abs(model.missing.bias[0].item()) < F.softplus(model.missing.weight[0]).item()


def test_every_parameter_gets_a_gradient():
    families = ["gaussian", "student_t", "bernoulli", ("categorical", 3)]
    model = MIWAE(families, 2, width=8, missing_model="agnostic")
    x = torch.tensor([[0.1, 0.2, 1.0, 2.0], [0.3, -1.0, 0.0, 1.0]])
    mask = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]])
    torch.nn.init.normal_(model.missing.weight, generator=rng())
    (-iwae_bound(model.terms(x, mask, 5, generator=rng()).log_weight)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def wrong(change):
    """A MIWAE whose terms are changed."""
    return type("Wrong", (MIWAE,), {"terms": lambda model, *given, **more: change(MIWAE.terms(model, *given, **more))})


WITHOUT_PROPOSAL = wrong(lambda t: t._replace(log_proposal=0 * t.log_proposal))
SWAPPED = wrong(lambda t: t._replace(log_prior=t.log_proposal, log_proposal=t.log_prior))
MEANS = type("Means", (MixedLikelihood,), {"sample": lambda like, parameter, generator: like.mean(parameter)})


def test_planted_faults(ppca):
    for fault, test in (
        (WITHOUT_PROPOSAL, test_bound_rises_with_k_to_the_exact_log_likelihood),
        (SWAPPED, test_imputation_is_the_exact_conditional_mean),
    ):
        model = fault(["gaussian"] * D, LATENT, width=16, decoder="linear").double()
        model.load_state_dict(ppca[0].state_dict())
        with pytest.raises(AssertionError):
            test((model, *ppca[1:]))
    with pytest.raises(AssertionError):
        test_not_miwae_imputes_the_mean_of_what_is_lost(MEANS)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MIWAE(["gausian"]), "likelihood: expected one of"),
        (lambda: MIWAE([("categorical", 1)]), "classes: expected"),
        (lambda: MIWAE([]), "columns: expected"),
        (lambda: MIWAE(["gaussian", "bernoulli"], decoder="linear"), "decoder: expected gaussian columns"),
        (lambda: MIWAE(["gaussian"], decoder="tree"), "decoder: expected one of"),
        (lambda: MIWAE(["gaussian"], missing_model="x"), "missing_model: expected one of"),
        (lambda: MIWAE(["gaussian"], missing_model="self-masking-known", signs=[0]), "signs: expected"),
        (lambda: MIWAE(["gaussian"]).posterior(torch.ones(2, 2), torch.ones(2, 2)), "x: expected shape"),
        (lambda: MIWAE(["gaussian"]).posterior(torch.ones(2, 1), torch.ones(3, 1)), "mask: expected the shape"),
        (lambda: MIWAE(["gaussian"]).decode(torch.ones(2, 1)), "z: expected shape"),
        (lambda: nested_bounds(torch.zeros(4), 3), "k: expected a divisor"),
        (lambda: iwae_bound(torch.zeros(0, 2)), "log_weight: expected at least one"),
        (lambda: MIWAERecipe(k=0), "k: expected"),
        (lambda: impute(MIWAE(["gaussian"]), *torch.zeros(2, 0, 1), generator=rng()), "x: expected at least one row"),
        (
            lambda: impute(MIWAE(["gaussian"]), *torch.ones(2, 3, 1), energy=lambda terms: terms.z, generator=rng()),
            r"energy: expected one number per draw and row, \(333, 3\), got",
        ),
    ],
)
def test_bad_input_names_the_fix(build, message):
    with pytest.raises(ValueError, match=message):
        build()
