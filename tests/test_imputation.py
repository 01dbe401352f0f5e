"""MIWAEImputer in scikit-learn's manners, table codes, and the tilted MIWAE."""

import datetime
import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.stats import t as student
from sklearn.utils.estimator_checks import check_estimator

from latentebm.missing import MIWAEImputer, impute, pool, tilt_miwae
from latentebm.missing.bound import Terms
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.mechanisms import MCAR, MissingDataWarning, make_missing
from latentebm.missing.miwae import MIWAE
from latentebm.tilting.fit_tilt import TiltRecipe

pytestmark = pytest.mark.filterwarnings("ignore:.*no observed cell")
FAST = {"latent_dim": 2, "members": 1, "width": 16, "k": 5, "steps": 400, "lr": 0.01, "draws": 200}


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
    many = imputer.multiple(holed, 8)
    assert len(many) == 8
    gone = ~mask["income"]
    values = np.stack([m["income"][gone] for m in many])
    single = imputer.transform(holed)["income"][gone]
    assert np.corrcoef(values.mean(0), single)[0, 1] > 0.9
    # Parameters vary from copy to copy; by how much, test_refits knows in closed form.
    assert len({model.decode(torch.zeros(1, 2))[0, 0].item() for model in imputer.bootstraps_}) == 8
    assert len(imputer.multiple(holed, 3, proper=False)) == 3
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
    ({}, np.ma.masked_array([["Rome", "Oslo"]] * 9), "X: expected numbers in an array, got text"),
    ({}, np.ma.masked_array([["2020-01-01", "NaT"]] * 9, dtype="M8[D]"), "numbers in an array, got dates or times"),
    ({}, np.ones((3, 2)).view([("a", float), ("b", float)]), "got records with named fields.*pandas.DataFrame"),
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
    assert abs(after.mean()) < 0.6 * abs(before.mean())
    assert abs(after.std().item() - 1.04) < 0.15
    assert 0.1 < ess <= 1
    x, m = torch.tensor([[float("nan")] * 3]), torch.zeros(1, 3)
    empty = tilt.impute(x, m, draws=20_000, generator=generator)
    assert empty.ess.item() > 0.05
    assert abs(empty.x.mean()) < 0.6 * abs(before.mean())


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

    def terms(self, x, mask, k, *, complete, noise, generator):
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
    some, all_of_them = fill(imputer, holed[::-7]), fill(imputer, holed)[::-7]
    numbers = ["income", "age", "owner"]
    assert np.allclose(some[numbers], all_of_them[numbers], rtol=1e-4) == alike
    assert some["city"].equals(all_of_them["city"]) or not alike


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


def test_new_records_and_fewer_categories_get_a_class_of_the_fit(fitted):
    imputer, _, _, _ = fitted
    record = {"income": 7000.0, "age": 60.0, "city": np.nan, "owner": 1.0}
    for city in (np.nan, None, pd.NA):
        assert imputer.transform(pd.DataFrame([{**record, "city": city}]))["city"].tolist() == ["Rome"]
    few = pd.DataFrame([record, {"income": 3000.0, "age": 20.0, "city": "Oslo", "owner": 0.0}])
    few["city"] = pd.Categorical([None, "Oslo"])
    for done in (imputer.transform(few), imputer.multiple(few, 1)[0]):
        assert done["city"].tolist() == ["Rome", "Oslo"]
        assert isinstance(done["city"].dtype, pd.CategoricalDtype)


def test_a_column_complete_in_the_fit_is_imputed_as_by_least_squares():
    # Least squares reaches .0125 here, 2000 steps .03; an encoder that never saw the mask is off by .65.
    g = np.random.default_rng(5)
    x, t = g.normal(size=(500, 1)), g.normal(size=(60, 1))
    X = np.c_[x, 2 * x, -x] + 0.05 * g.normal(size=(500, 3))
    T = np.c_[t, 2 * t, -t]
    holed = T.copy()
    holed[:, 1] = np.nan
    done = MIWAEImputer(latent_dim=1, members=1, width=32, steps=800, lr=5e-3, draws=300).fit(X).transform(holed)
    assert np.sqrt(np.mean((done - T)[:, 1] ** 2)) < 0.12


@pytest.mark.parametrize(
    ("cells", "given"),
    [
        (pd.Series([1, None, 3] * 10, dtype=object), {1, 3}),
        ([True, None, False] * 10, {True, False}),
        (pd.array([True, None, False] * 10, dtype="boolean"), {True, False}),
        (pd.array([5, None, 7] * 10, dtype="Int64"), {5, 6, 7}),
        (pd.array([255, None, 255, 254] * 8, dtype="UInt8")[:30], set(range(256))),
        (pd.array([5, None, 7] * 10, dtype=pd.ArrowDtype(pa.int8())), {5, 6, 7}),
        (pd.array([0.5, None, 0.25] * 10, dtype="Float32"), set()),
        (pd.array([0.5, None, 0.25] * 10, dtype=pd.ArrowDtype(pa.float64())), set()),
        (np.array([0.5, np.nan, 0.25] * 10) * 1e-200, set()),
        (np.array([0.5, np.nan, 0.25] * 10) * 1e200, set()),
    ],
)
def test_columns_of_every_type_keep_their_kind(cells, given):
    frame = pd.DataFrame({"x": np.arange(30.0), "c": cells})
    done = MIWAEImputer(latent_dim=1, width=4, k=2, steps=5, draws=10).fit(frame).transform(frame)["c"]
    assert done.notna().all()
    assert (done == frame["c"])[frame["c"].notna()].all()
    assert done.dtype == frame["c"].dtype or frame["c"].dtype == object
    assert set(done[frame["c"].isna()]) <= (given | {2} if 1 in given else given) or not given
    seen = frame["c"].dropna()
    if not given:
        assert seen.min() <= done.min() < done.max() < 4 * seen.max()


@pytest.mark.parametrize(
    ("cells", "fix"),
    [
        (["1", "2", None] * 10, "numbers written as text.*pandas.to_numeric"),
        (pd.Categorical(["u", None, "v"] * 10), "'c': 'categorical'"),
        (pd.array(["u", None, "v"] * 10, dtype=pd.ArrowDtype(pa.string())), "holds text or categories"),
        (np.array([1j, np.nan, 2j] * 10), "complex numbers.*real and .imag"),
    ],
)
def test_other_columns_are_refused_with_the_fix_of_their_kind(cells, fix):
    with pytest.raises(ValueError, match=fix):
        MIWAEImputer(steps=1).fit(pd.DataFrame({"x": np.arange(30.0), "c": cells}))


UTC, OLD = datetime.timezone.utc, datetime.datetime(1492, 10, 12, 5)


@pytest.mark.parametrize("first", [
    OLD, OLD.date(), OLD.replace(tzinfo=UTC), OLD.time(), OLD - OLD.replace(year=1500), pd.Period("1492-10"),
    pd.array([OLD.date()], dtype=pd.ArrowDtype(pa.date32())), pd.to_timedelta(["3 days"]), pd.Timestamp(OLD, tz="UTC"),
    pd.to_datetime(["2020-10-12"]).tz_localize("Asia/Tokyo"), pd.period_range("1492", periods=1),
])  # fmt: skip
def test_the_advice_on_dates_leads_to_numbers(first):
    cells = pd.Series([first], dtype=object) if not hasattr(first, "dtype") else pd.Series(first)
    X = pd.DataFrame({"x": np.arange(30.0), "c": cells.reindex(range(30)).ffill(limit=9)})
    for _ in range(2):
        with pytest.raises(ValueError, match="which holds dates or times") as said:
            MIWAEImputer(steps=1).fit(X)
        X["c"] = eval(re.search(r"(?:pandas|\(?X\[).*", str(said.value))[0], {"X": X, "pandas": pd})
        if pd.api.types.is_numeric_dtype(X["c"]):
            break
    assert X["c"].notna().sum() == 10
    with pytest.warns(MissingDataWarning, match="constant"):
        assert MIWAEImputer(latent_dim=1, width=4, steps=1, draws=5).fit_transform(X)["c"].nunique() == 1


def test_imputed_numbers_keep_their_column_s_range():
    g = np.random.default_rng(0)
    frame = pd.DataFrame({"count": g.poisson(1.0, 60), "share": g.beta(0.5, 0.5, 60), "any": g.normal(size=60)}) * 1.0
    frame = frame.assign(grade=g.integers(1, 6, 60)).mask(g.random((60, 4)) < 0.4)
    imputer = MIWAEImputer(latent_dim=2, width=8, k=2, steps=20, draws=20, bounds={"grade": (1, 5)}).fit(frame)
    done = pd.concat([imputer.transform(frame), *imputer.multiple(frame, 3)])
    assert set(done["count"]) <= set(range(100))
    assert done["share"].between(0, 1).all()
    assert set(done["grade"]) == {1, 2, 3, 4, 5}
    assert done["any"].min() < 0
    for wrong, said in (((2, 5), "bounds that hold all of"), (3, "two numbers for"), ((1, "x"), "two numbers for")):
        with pytest.raises(ValueError, match=f"bounds: expected {said} column 'grade'"):
            MIWAEImputer(bounds={"grade": wrong}).fit(frame)
    with pytest.raises(ValueError, match=r"unique column names, got \[.a.\] more than once"):
        MIWAEImputer().fit(pd.DataFrame(np.eye(3), columns=["a", "a", "b"]))


def test_masked_arrays_hide_what_they_mask():
    X = np.ma.masked_array(np.arange(60.0).reshape(20, 3), np.zeros((20, 3), dtype=bool))
    X[3, 1] = np.ma.masked
    imputer = MIWAEImputer(latent_dim=1, width=4, k=2, steps=5, draws=5).fit(X)
    assert np.isnan(imputer._table(X, reset=False).to_numpy()).sum() == 1
    assert (imputer.transform(X) != X.data).sum() == 1
    assert (~make_missing(X, MCAR(), 0.0, random_state=0)[1]).sum() == 1
    objects = np.where(np.arange(60).reshape(20, 3) == 10, pd.NA, X.data.astype(object))
    assert (imputer.transform(objects) != X.data).sum() == 1


def test_pooling_is_rubin_s_by_hand():
    # Q = 1, 2, 3 and W = 1/2: B = 1, T = 1/2 + 4/3, λ = (4/3)/T; ν by Barnard and Rubin with ν0 = 59.
    total, share = 0.5 + 4 / 3, (4 / 3) / (0.5 + 4 / 3)
    pooled = pool([1.0, 2.0, 3.0], [0.5] * 3, df=59)
    seen = 60 / 62 * 59 * (1 - share)
    assert pooled.df == pytest.approx(1 / (share**2 / 2 + 1 / seen))
    assert (pooled.estimate, pooled.se**2, pooled.missing) == pytest.approx((2, total, share))
    assert pooled.high - 2 == pytest.approx(student.ppf(0.975, pooled.df) * total**0.5)
    assert pool([1.0, 2.0, 3.0], [0.5] * 3).df == pytest.approx(2 / share**2)
    none = pool(np.ones((4, 2)), np.ones((4, 2)), df=10)
    assert np.allclose(none.df, 11 / 13 * 10)
    for bad in (([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1, 1]), ([1, 2], [1, -1])):
        with pytest.raises(ValueError, match="expected"):
            pool(*bad)


def test_cells_marked_as_seen_must_be_numbers():
    model = MIWAE(["gaussian"] * 2, 1)
    x = torch.tensor([[torch.nan, 1.0]])
    with pytest.raises(ValueError, match="x: expected finite values where mask is 1"):
        impute(model, x, torch.ones(1, 2), generator=torch.Generator())
    assert bool(impute(model, x, torch.tensor([[0.0, 1.0]]), draws=5, generator=torch.Generator()).x.isfinite().all())
