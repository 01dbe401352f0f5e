"""MIWAEImputer in scikit-learn's manners, table codes, and the tilted MIWAE."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.estimator_checks import check_estimator

from latentebm.missing import MIWAEImputer, impute, tilt_miwae
from latentebm.missing.bound import Terms
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.mechanisms import MCAR, MissingDataWarning, make_missing
from latentebm.missing.miwae import MIWAE
from latentebm.tilting.fit_tilt import TiltRecipe

pytestmark = pytest.mark.filterwarnings("ignore:.*no observed cell")
FAST = {"latent_dim": 2, "width": 16, "k": 5, "steps": 400, "lr": 0.01, "draws": 200}


def mixed(n=400, seed=0):
    """Numbers, a class and a flag that all follow one latent."""
    g = np.random.default_rng(seed)
    z = g.normal(size=n)
    return pd.DataFrame(
        {
            "income": 1000 * z + 5000 + 200 * g.normal(size=n),
            "age": 40 + 10 * z + 2 * g.normal(size=n),
            "city": np.where(z + 0.3 * g.normal(size=n) > 0, "Rome", "Oslo"),
            "owner": (z + 0.3 * g.normal(size=n) > 0.5).astype(float),
        },
        index=np.arange(n) + 100,
    )


FAMILIES = {"city": "categorical", "owner": "bernoulli", "age": "student_t"}


@pytest.fixture(scope="module")
def fitted():
    whole = mixed()
    holed, mask = make_missing(whole, MCAR(), 0.25, random_state=0)
    keep = mask.any(axis=1)
    holed, mask, whole = holed[keep], mask[keep], whole[keep]
    return MIWAEImputer(**FAST, likelihood=FAMILIES).fit(holed), whole, holed, mask


def test_scikit_learn_checks():
    results = check_estimator(MIWAEImputer(latent_dim=1, width=4, k=2, steps=3, draws=5), on_skip=None)
    assert [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")] == []
    assert len(results) > 30


def test_mixed_frame_is_imputed_from_its_other_columns(fitted):
    imputer, whole, holed, mask = fitted
    done = imputer.transform(holed)
    assert isinstance(done, pd.DataFrame)
    assert list(done.columns) == list(whole.columns)
    assert (done.index == whole.index).all()
    assert not done.isna().any(axis=None)
    for c in whole:
        assert (done[c][mask[c]] == whole[c][mask[c]]).all()
    gone = ~mask["income"]
    error = (done["income"] - whole["income"])[gone].std()
    assert error < 0.6 * whole["income"].std()
    gone = ~mask["city"]
    assert (done["city"] == whole["city"])[gone].mean() > 0.75
    assert done["owner"].between(0, 1).all()
    whole["owner"] = whole["owner"].astype(bool)
    assert imputer.transform(whole).equals(whole)


def test_multiple_imputation_keeps_the_spread_and_new_rows_are_welcome(fitted):
    imputer, whole, holed, mask = fitted
    many = imputer.multiple(holed, 20)
    assert len(many) == 20
    gone = ~mask["income"]
    values = np.stack([m["income"][gone] for m in many])
    single = imputer.transform(holed)["income"][gone]
    assert np.corrcoef(values.mean(0), single)[0, 1] > 0.95
    # A single imputation is too narrow; drawn ones spread like the data.
    assert 0.75 < values.std() / whole["income"].std() < 1.3
    assert set(pd.concat(many)["city"]) == {"Rome", "Oslo"}
    new = mixed(50, seed=7)
    new.loc[:, "income"] = np.nan
    done = imputer.transform(new)
    assert (done["income"] - mixed(50, seed=7)["income"]).std() < 600
    assert imputer.score(whole) > imputer.score(whole.assign(age=whole["age"].to_numpy()[::-1]))


def test_same_seed_same_result_and_global_state_untouched():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[::3, 1] = np.nan
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (MIWAEImputer(latent_dim=1, width=8, steps=20, draws=20).fit_transform(X) for _ in range(2))
    other = MIWAEImputer(latent_dim=1, width=8, steps=20, draws=20, random_state=1).fit_transform(X)
    assert (first == second).all()
    assert (first != other).any()
    assert torch.equal(before, torch.get_rng_state())


def test_empty_and_constant_rows_and_columns_are_kept_and_said():
    X = np.random.default_rng(0).normal(size=(80, 4)) + 7
    X[:, 1] = np.nan
    X[:, 2] = 3.0
    X[:4, 2] = np.nan
    X[5] = np.nan
    imputer = MIWAEImputer(**{**FAST, "steps": 60})
    with pytest.warns(MissingDataWarning) as said:
        done = imputer.fit(X).transform(X)
    text = " ".join(str(w.message) for w in said)
    assert all(part in text for part in ("1 has no observed cell", "2 is constant", "1 rows have no observed cell"))
    assert done.shape == X.shape
    assert (done[:, 1] == 0).all()
    assert (done[:, 2] == 3.0).all()
    # The model's mean of a row about which nothing is known.
    assert np.abs(done[5, [0, 3]] - 7).max() < 1.0


FRAME = mixed(30)
BAD = [
    ({}, FRAME, "likelihood: expected a family for 'city', which holds text"),
    ({"likelihood": {"town": "categorical"}}, FRAME, "likelihood: expected columns of X"),
    ({"likelihood": {"city": "categorical", "age": "normal"}}, FRAME, "likelihood: expected one of"),
    ({"likelihood": {"city": "categorical", "age": "bernoulli"}}, FRAME, "0 and 1 in the bernoulli column 'age'"),
    ({"likelihood": FAMILIES}, FRAME.replace({"age": {FRAME["age"].iloc[0]: np.inf}}), "infinity in column 'age'"),
    ({}, np.array([[np.inf, 1.0], [1.0, 2.0]]), "infinity"),
    ({}, np.array([["Rome", 1.0], ["Oslo", 2.0]], dtype=object), "X: expected numbers in an array, got text"),
    ({}, np.ones((0, 2)), "0 sample"),
    ({"latent_dim": 0}, np.eye(4), "latent_dim: expected"),
    ({"draws": 0}, np.eye(4), "draws: expected"),
    ({"missing_model": "mcar"}, np.eye(4), "missing_model: expected one of"),
    ({"missing_model": "self-masking-known", "direction": {"x": "high"}}, np.eye(4), "direction: expected columns"),
    ({"missing_model": "self-masking-known", "direction": "up"}, np.eye(4), "direction: expected one of"),
]


@pytest.mark.parametrize(("settings", "X", "message"), BAD)
def test_bad_input_names_the_fix(settings, X, message):
    with pytest.raises(ValueError, match=message):
        MIWAEImputer(**{**FAST, "steps": 2, **settings}).fit(X)


def test_unknown_class_at_transform(fitted):
    imputer, whole, _, _ = fitted
    with pytest.raises(ValueError, match="classes of 'city' seen in fit"):
        imputer.transform(whole.assign(city="Paris"))


@pytest.mark.parametrize("space", ["latent", "data"])
def test_tilt_moves_a_biased_model_to_the_reference(space):
    # A row is one number seen three times; large ones were lost in the table the model is fitted to.
    g = np.random.default_rng(0)

    def rows(n):
        return g.normal(size=(n, 1)) + 0.3 * g.normal(size=(n, 3))

    whole = rows(3000)
    probability = 1 / (1 + np.exp(1.5 * whole.mean(1)))
    biased = torch.tensor(whole[g.random(3000) < probability], dtype=torch.float32)
    torch.manual_seed(0)
    model = MIWAE(["gaussian"] * 3, 1, width=16, decoder="linear")
    generator = torch.Generator().manual_seed(0)
    # Half the cells are left out at random, for an encoder that knows rows of which little or nothing is seen.
    half = (torch.rand(biased.shape, generator=generator) < 0.5).float()
    fit_miwae(model, biased, half, MIWAERecipe(k=5, steps=400, lr=0.01), generator=generator)
    holed, mask = make_missing(torch.tensor(rows(800), dtype=torch.float32), MCAR(), 0.3, random_state=1)
    tilt = tilt_miwae(model, holed, mask, space=space, members=2, draws=300, copies=20, generator=generator,
                      recipe=TiltRecipe(steps=400, patience=4))  # fmt: skip
    before = model.sample(torch.randn(20_000, 1, generator=generator), generator=generator)
    after, ess = tilt.sample(20_000, generator=generator)
    assert before.mean() < -0.3
    # Early stopping on a held-out fold keeps a tilt from going all the way.
    assert abs(after.mean()) < 0.5 * abs(before.mean())
    assert abs(after.std().item() - 1.04) < 0.15
    assert 0.1 < ess <= 1
    x, m = torch.tensor([[float("nan")] * 3]), torch.zeros(1, 3)
    empty = tilt.impute(x, m, draws=20_000, generator=generator)
    assert empty.ess.item() > 0.05
    assert abs(empty.x.mean()) < 0.5 * abs(before.mean())


@pytest.mark.parametrize(("positives", "mean"), [("completed", 0.7), ("generated", 0.0)])
def test_completed_rows_teach_what_no_code_can(positives, mean):
    # The decoder ignores the code: x ~ N(0, .69²) always. Only the reference cells themselves say where x should be.
    generator = torch.Generator().manual_seed(0)
    model = MIWAE(["gaussian", "gaussian"], 1, width=4, decoder="linear")
    with torch.no_grad():
        for parameter in model.decoder.mean.parameters():
            parameter.zero_()
    x = 0.7 + 0.5 * torch.randn(400, 2, generator=generator)
    mask = (torch.rand(x.shape, generator=generator) < 0.7).float()
    tilt = tilt_miwae(model, x, mask, space="data", positives=positives, members=2, draws=100, copies=5,
                      recipe=TiltRecipe(steps=60, lr=0.03), generator=generator)  # fmt: skip
    rows, ess = tilt.sample(20_000, generator=generator)
    assert (rows.mean(0) - mean).abs().max() < 0.12
    assert ess > 0.1
    seen = torch.tensor([[0.0, math.nan]]), torch.tensor([[1.0, 0.0]])
    assert abs(tilt.impute(*seen, draws=5_000, generator=generator).x[0, 1].item() - mean) < 0.25


class TwoChunks(MIWAE):
    """Posterior draws of 0 in the first chunk and of 1, with a ninth of the weight, in the second."""

    chunk = 0

    def terms(self, x, mask, k, *, complete, generator):
        z, none = torch.full((k, 1, 1), float(self.chunk)), torch.zeros(k, 1)
        self.chunk += 1
        return Terms(z, none - math.log(9) * z[:, 0], none, none, none, torch.cat([z, z], -1), z)


def test_streaming_resampling_weighs_chunks_by_their_sums():
    # The second chunk must hold a tenth of the draws, and of the mean.
    model = TwoChunks(["gaussian"], 1, width=4)
    nothing, generator = torch.zeros(1, 1), torch.Generator().manual_seed(0)
    done = impute(model, nothing, nothing, draws=2000, multiple=40_000, generator=generator)
    assert model.chunk == 2
    assert abs(done.latent.mean().item() - 0.1) < 5 * math.sqrt(0.09 / 40_000)
    assert done.x.item() == pytest.approx(0.1, abs=1e-6)
    assert done.ess.item() == pytest.approx(0.5 * (10 / 9) ** 2 / (1 + 1 / 81), abs=1e-6)


@pytest.mark.parametrize(("fill", "alike"), [(MIWAEImputer.transform, True), (lambda i, X: i.multiple(X, 1)[0], False)])
def test_a_row_is_imputed_alike_in_any_company(fitted, fill, alike):
    # The wrong way draws all rows from one stream.
    imputer, _, holed, _ = fitted
    assert fill(imputer, holed)[::-7].equals(fill(imputer, holed[::-7])) == alike


def test_tilt_refuses_bad_input():
    model, g = MIWAE(["gaussian"], 1, width=4), torch.Generator()
    with pytest.raises(ValueError, match="reference: expected at least 2 rows"):
        tilt_miwae(model, torch.ones(1, 1), torch.ones(1, 1), generator=g)
    with pytest.raises(ValueError, match="space: expected one of"):
        tilt_miwae(model, torch.ones(3, 1), torch.ones(3, 1), space="pixel", generator=g)
    with pytest.raises(ValueError, match="positives: expected one of"):
        tilt_miwae(model, torch.ones(3, 1), torch.ones(3, 1), space="data", positives="raw", generator=g)
    for space, objective in (("data", "contrastive"), ("data", "amortized"), ("latent", "score")):
        recipe = TiltRecipe(objective=objective)
        with pytest.raises(ValueError, match=f"objective: expected .* in {space} space, got {objective}"):
            tilt_miwae(model, torch.ones(3, 1), torch.ones(3, 1), space=space, recipe=recipe, generator=g)


def test_flags_with_gaps_and_empty_categories():
    frame = pd.DataFrame({"x": np.linspace(0, 1, 40), "owner": [True, None, False, True] * 10})
    frame["empty"] = pd.Categorical([None] * 40, categories=["a", "b"])
    kinds = {"owner": "bernoulli", "empty": "categorical"}
    imputer = MIWAEImputer(latent_dim=1, steps=5, likelihood=kinds, random_state=0)
    with pytest.warns(MissingDataWarning, match="filled with 'a'"):
        done = imputer.fit_transform(frame)
    assert done["empty"].tolist() == ["a"] * 40
    assert done["owner"].astype(float).between(0, 1).all()


def test_cells_marked_as_seen_must_be_numbers():
    model = MIWAE(["gaussian"] * 2, 1)
    x = torch.tensor([[torch.nan, 1.0]])
    with pytest.raises(ValueError, match="x: expected finite values where mask is 1"):
        impute(model, x, torch.ones(1, 2), generator=torch.Generator())
    assert bool(impute(model, x, torch.tensor([[0.0, 1.0]]), draws=5, generator=torch.Generator()).x.isfinite().all())
