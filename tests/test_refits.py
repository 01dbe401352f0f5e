"""Copies of a MIWAE refitted to bootstrap samples, side by side."""

import pytest
import torch

from latentebm.missing.fit_miwae import MIWAERecipe, bound_loss, fit_miwae
from latentebm.missing.miwae import MIWAE
from latentebm.missing.refits import _Copies, refit_to_bootstraps
from latentebm.rng import seeded

RECIPE = MIWAERecipe(k=5, steps=150, lr=0.03)


def test_copies_spread_as_the_means_of_samples_do():
    # A column's fitted mean is its sample's, and the mean of n numbers has a standard error of sd / √n.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, generator=generator)
    x = (x - x.mean()) / x.std(correction=0)
    with seeded(0):
        model = MIWAE(["gaussian"], 1, width=4, decoder="linear")
    fit_miwae(model, x, torch.ones_like(x), RECIPE, generator=generator)
    before = [p.clone() for p in model.parameters()]
    copies = refit_to_bootstraps(model, x, torch.ones_like(x), RECIPE, 60, generator=generator)
    means = torch.stack([copy.decode(torch.zeros(1, 1)).squeeze() for copy in copies])
    assert abs(means.mean()) < 4 / (40 * 60) ** 0.5
    assert means.std() == pytest.approx(40**-0.5, rel=0.3)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("missing", [None, "self-masking", "agnostic"])
def test_stacked_gradients_are_those_of_each_copy(missing):
    families = ["gaussian", "student_t", "bernoulli", ("categorical", 3)]
    model = MIWAE(families, 2, width=8, missing_model=missing)
    x = torch.tensor([[0.5, -1.0, 1.0, 2.0], [torch.nan, 0.3, 0.0, 1.0]])
    mask = (~x.isnan()).float()
    one, two = _Copies(model, 1), _Copies(model, 2)
    one.loss(x.unsqueeze(1), mask.unsqueeze(1), 50, torch.Generator().manual_seed(0)).backward()
    bound_loss(model, x, mask, 50, torch.Generator().manual_seed(0)).backward()
    for name, stacked in zip(one.names, one.stacked, strict=True):
        assert torch.allclose(stacked.grad[0], model.get_parameter(name).grad, atol=1e-5), name
    # In the second copy's batch nothing is seen, by which no decoder learns; the first one's must not reach it.
    two.loss(torch.stack([x, x], 1), torch.stack([mask, 0 * mask], 1), 50, torch.Generator()).backward()
    if missing is None:
        decoder = [g.grad for n, g in zip(two.names, two.stacked, strict=True) if n.startswith("decoder")]
        assert all(g[0].any() and not g[1].any() for g in decoder)
