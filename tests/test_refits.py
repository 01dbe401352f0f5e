"""Several MIWAE side by side: members fitted without a fold, copies refitted to bootstrap samples, their mean."""

import pytest
import torch

from latentebm.missing.fit_miwae import MIWAERecipe, Prediction, bound_loss, fit_miwae
from latentebm.missing.imputation import impute_each
from latentebm.missing.imputer import MIWAEImputer
from latentebm.missing.miwae import MIWAE
from latentebm.missing.refits import _Copies, fit_to_folds, refit_to_bootstraps
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
    copies = refit_to_bootstraps([model] * 60, x, torch.ones_like(x), RECIPE, generator=generator)
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
    one, two = _Copies([model]), _Copies([model] * 2)
    one.loss(x.unsqueeze(1), mask.unsqueeze(1), 50, torch.Generator().manual_seed(0)).backward()
    bound_loss(model, x, mask, 50, torch.Generator().manual_seed(0)).backward()
    for name, stacked in zip(one.names, one.stacked, strict=True):
        assert torch.allclose(stacked.grad[0], model.get_parameter(name).grad, atol=1e-5), name
    # In the second copy's batch nothing is seen, by which no decoder learns; the first one's must not reach it.
    two.loss(torch.stack([x, x], 1), torch.stack([mask, 0 * mask], 1), 50, torch.Generator()).backward()
    if missing is None:
        decoder = [g.grad for n, g in zip(two.names, two.stacked, strict=True) if n.startswith("decoder")]
        assert all(g[0].any() and not g[1].any() for g in decoder)


class Constant(MIWAE):
    """A decoder that says the same of every code."""

    def __init__(self, families, says):
        super().__init__(families, 1, width=4)
        self.decoder = torch.nn.Linear(1, len(says))
        with torch.no_grad():
            self.decoder.weight.zero_()
            self.decoder.bias.copy_(torch.tensor(says))


def test_a_state_is_judged_by_squared_errors_of_hidden_cells():
    # A number said to be 1 and a first class said to be likely; hidden cells hold 3, and the second class or the first.
    model = Constant(["gaussian", ("categorical", 2)], [1.0, 0.0, 3**0.5, -(3**0.5)])
    p = torch.tensor([3**0.5, -(3**0.5)]).softmax(0)
    x, mask = torch.tensor([[3.0, 1.0], [3.0, 0.0]]), torch.ones(2, 2)
    noise = torch.zeros(5, 2, 1)
    judge = Prediction(model)
    brier = p[0] ** 2 + (1 - p[1]) ** 2
    shown = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert torch.isclose(judge(x, mask, shown, noise), (4 + brier) / 2)
    assert torch.isclose(judge(x, mask, 1 - shown, noise), (4 + (1 - p[0]) ** 2 + p[1] ** 2) / 2)
    lost = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # what is not known judges nobody
    assert torch.isclose(judge(x.masked_fill(lost == 0, torch.nan), lost, shown * lost, noise), torch.tensor(4.0))


def test_each_member_is_fitted_to_all_rows_but_its_fold(monkeypatch):
    x, everything = torch.arange(12.0).reshape(12, 1), set(range(12))
    seen, judged = [set(), set(), set()], []
    loss, errors = _Copies.loss, _Copies.errors

    def spied(copies, rows, *more):
        for one, part in zip(seen, rows.unbind(1), strict=True):
            one |= set(part.flatten().tolist())
        return loss(copies, rows, *more)

    def spied_errors(copies, rows, *more):
        judged[:] = [set(part.flatten().tolist()) for part in rows]
        return errors(copies, rows, *more)

    monkeypatch.setattr(_Copies, "loss", spied)
    monkeypatch.setattr(_Copies, "errors", spied_errors)
    models = [MIWAE(["gaussian"], 1, width=4) for _ in range(3)]
    recipe = MIWAERecipe(k=2, steps=8, batch_size=3)
    best = fit_to_folds(models, x, torch.ones_like(x), recipe, generator=torch.Generator().manual_seed(0)).best
    assert best.shape == (3,)
    assert [one | other for one, other in zip(seen, judged, strict=True)] == [everything] * 3
    assert [one & other for one, other in zip(seen, judged, strict=True)] == [set()] * 3
    assert set.union(*judged) == everything
    with pytest.raises(ValueError, match="x: expected at least 3 rows, one for each fold"):
        fit_to_folds(models, x[:2], torch.ones(2, 1), recipe, generator=torch.Generator())


def test_imputations_of_several_models_are_averaged():
    families = ["gaussian", ("categorical", 2)]
    says = [[1.0, 0.0, 9.0, 0.0], [4.0, 0.0, 0.0, 1.0], [4.0, 0.0, 0.0, 1.0]]
    x, mask = torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    done = impute_each([Constant(families, s) for s in says], x, mask, draws=5, seed=0)
    # By majority the second class would win, by mean probability the first: (1 + .27 + .27) / 3 > 1/2.
    assert torch.allclose(done, torch.tensor([[3.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize(("rows", "more", "members"), [
    (60, {}, 3), (59, {}, 1), (2001, {}, 1), (60, {"missing_model": "self-masking"}, 1),
])  # fmt: skip
def test_members_where_they_pay(rows, more, members):
    X = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0)).numpy()
    imputer = MIWAEImputer(members=3, latent_dim=1, width=4, k=1, steps=1, draws=2, **more).fit(X)
    assert len({m.encoder[0].weight.sum().item() for m in imputer.models_}) == members
    assert len(imputer.multiple(X, 4, proper=False)) == 4
    many = MIWAEImputer(members=3, width=4, k=10**5)  # 64 or all rows by k draws by 4 units
    assert [many._at_once(["gaussian"], n) for n in (rows, 1)] == [
        1 if rows > 40 else 16_000_000 // (rows * 400_000),
        20,
    ]
