"""Tables: codes and back, the model of rows, targets in closed form, conditions, bad input."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from typer.testing import CliRunner

from latentebm import Mean, Parity, Share, TableDebiaser, census_truth, equal_opportunity, synthetic_census
from latentebm.cli.app import app
from latentebm.sampling.importance.moments import moment_weights
from latentebm.tables.judged.table_measures import (
    association_distance,
    marginal_distances,
    measured,
    nearness,
    parity_gap,
)
from latentebm.tables.judged.utility import train_on_made
from latentebm.tables.learn_column import learn_column
from latentebm.tables.row_model import RowModel
from latentebm.tables.table_code import TableCode

FAST = {"steps": 60, "pool": 20_000, "width": 16}


@pytest.fixture(scope="module")
def census() -> pd.DataFrame:
    return synthetic_census(2000, seed=0)


@pytest.fixture(scope="module")
def fitted(census) -> TableDebiaser:
    return TableDebiaser(Parity("income", by="sex"), **FAST).fit(census)


class Bootstrap:
    """A generator of somebody else: rows of the table drawn again, from NumPy's global stream."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def sample(self, n: int) -> pd.DataFrame:
        return self.table.iloc[np.random.randint(len(self.table), size=n)]


@pytest.fixture(scope="module")
def exact() -> TableDebiaser:
    """The census's own distribution as the model, so that closed forms hold."""
    return TableDebiaser(model=Bootstrap(synthetic_census(60_000, seed=1)), pool=60_000)


def gap(rows: pd.DataFrame, **given: str) -> float:
    for column, value in given.items():
        rows = rows[rows[column] == value]
    high = (rows["income"] == "high").groupby(rows["sex"], observed=True).mean()
    return abs(float(high["M"] - high["F"]))


# Cells


def test_cells_come_back():
    table = pd.DataFrame(
        {
            "flag": pd.array([True, False, None] * 20, dtype="boolean"),
            "plain": [True, False, False] * 20,
            "cat": pd.Categorical(["b", None, "a"] * 20, categories=["c", "b", "a"], ordered=True),
            "int": pd.array([1, None, 5] * 20, dtype="Int16"),
            "float": [0.25, np.nan, 1e6] * 20,
            "old": pd.Series(np.array(["1500-01-01", "NaT", "1969-07-20"] * 20, dtype="datetime64[s]")),
            "zone": pd.date_range("2020", periods=3, tz="Europe/Paris").repeat(20),
            "constant": "same",
            "empty": np.nan,
            "a<b>/..": ["x", None, "y"] * 20,
        }
    )
    code = TableCode.learn(table)
    codes = code.encode(table)
    pd.testing.assert_frame_equal(code.decode(codes, torch.zeros(codes.shape)), table)


def test_numbers_keep_their_spike_their_grain_their_range_and_their_tail():
    rng = np.random.default_rng(0)
    x = np.where(rng.random(20_000) < 0.6, 0.0, np.round(rng.pareto(1.5, 20_000) * 1000, 2))
    column = learn_column("gain", pd.Series(x))
    codes = column.encode(pd.Series(x))
    back = column.decode(codes, rng.random(len(x))).to_numpy()
    assert (back == 0).mean() == (x == 0).mean()
    assert np.array_equal(np.round(back, 2), back)
    assert back.min() >= x.min()
    assert back.max() <= x.max()
    for q in (0.7, 0.9, 0.99, 0.999):
        assert np.quantile(back, q) == pytest.approx(np.quantile(x, q), rel=0.05)


def test_whole_numbers_keep_their_grid():
    even = pd.Series(np.random.default_rng(0).integers(0, 5000, 4000) * 2 + 1)
    column = learn_column("odd", even)
    back = column.decode(column.encode(even), np.random.default_rng(1).random(4000))
    assert back.dtype == even.dtype
    assert (back % 2 == 1).all()


# The model


def test_probabilities_sum_to_one_in_any_order_and_are_those_of_the_draws():
    sizes = [2, 3, 2]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RowModel(sizes, order=[2, 0, 1], width=8)
    rows = torch.tensor(list(itertools.product(*map(range, sizes))))
    p = model.log_prob(rows).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    z = model.latents(100_000, torch.Generator().manual_seed(0))
    drawn, _, _ = model.rows(z)
    found = torch.stack([(drawn == row).all(1).double().mean() for row in rows])
    assert float((found - p).abs().max()) < 4 * 0.5 / 100_000**0.5
    # Given a value, the mean weight is that value's probability.
    allowed = {1: torch.tensor([False, False, True])}
    given, _, log_weight = model.rows(z[:20_000], allowed)
    assert (given[:, 1] == 2).all()
    assert float(log_weight.exp().mean()) == pytest.approx(float(p[rows[:, 1] == 2].sum()), rel=0.02)
    # Stopped and taken up again, the rows are the same.
    part, _, _ = model.rows(z, stop=1)
    assert (part[:, [0, 1]] == -1).all()
    assert torch.equal(model.rows(z, known=part)[0], drawn)


def test_a_column_reads_those_before_it_alone():
    model = RowModel([3, 3], order=[1, 0], width=4)
    a, b = torch.tensor([[0, 1]]), torch.tensor([[2, 1]])
    ratio = model.log_prob(a) - model.log_prob(b)  # the same first column: it cancels
    model.heads[0].weight.data += 1
    assert torch.allclose(model.log_prob(a) - model.log_prob(b), ratio, atol=1e-6)


# Weights


def test_moments_meet_equalities_and_leave_slack_bounds_alone():
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    theta, mean = moment_weights(x, np.array([0.5, -1.0]), at_least=np.array([False, True]))
    assert theta == pytest.approx([0.5, 0.0], abs=0.03)  # N(θ, 1) is the tilt of N(0, 1) by θx
    assert mean[0] == pytest.approx(0.5, abs=1e-4)


def test_parity_weights_are_those_of_the_closed_form(exact):
    truth = census_truth()
    model = clone(exact).set_params(target=Parity("income", by="sex")).fit(synthetic_census(500, seed=2))
    health = model.weigh()
    assert health["ess"] == pytest.approx(truth["ess"], abs=0.01)
    assert health["kl"] == pytest.approx(truth["kl"], abs=0.004)
    rows, before = model.sample(40_000), model.sample_prior(40_000)
    assert gap(before) == pytest.approx(truth["gap"], abs=0.02)
    assert gap(rows) < 0.015
    assert (rows["income"] == "high").mean() == pytest.approx(truth["high"], abs=0.01)
    assert (rows["sex"] == "F").mean() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    ("target", "measure", "wanted"),
    [
        ({"sex": {"F": 0.6}}, lambda t: (t["sex"] == "F").mean(), 0.6),
        (Share(["sex", "income"], {("F", "high"): 0.12}),
         lambda t: ((t["sex"] == "F") & (t["income"] == "high")).mean(), 0.12),
        (Share("income", {"high": 0.4}, given={"sex": "F"}),
         lambda t: (t["income"] == "high")[t["sex"] == "F"].mean(), 0.4),
        (Share("hours", {pd.Interval(0, 35): 0.5}), lambda t: (t["hours"] <= 35).mean(), 0.5),
        (Share("years", {None: 0.25}), lambda t: t["years"].isna().mean(), 0.25),
        (Mean("hours", 43.0), lambda t: t["hours"].mean(), 43.0),
        (Share("income", {"high": 0.1}, bound="at_most"), lambda t: (t["income"] == "high").mean(), 0.1),
        (Parity("income", by="sex", at_most=0.05), gap, 0.05),
        (Parity("income", by="sex", within="occupation"), lambda t: gap(t, occupation="office"), 0.0),
        (equal_opportunity("occupation", "sex", outcome="income", positive="low"),
         lambda t: abs((t["occupation"] == "care")[(t["sex"] == "F") & (t["income"] == "low")].mean()
                       - (t["occupation"] == "care")[(t["sex"] == "M") & (t["income"] == "low")].mean()), 0.0),
    ],
)  # fmt: skip
def test_targets_are_met(exact, target, measure, wanted):
    model = clone(exact).set_params(target=target, pool=20_000).fit(synthetic_census(500, seed=2))
    found, before = measure(model.sample(20_000)), measure(model.sample_prior(20_000))
    assert found == pytest.approx(wanted, abs=0.02 * max(1, wanted))
    assert before != pytest.approx(wanted, abs=0.04 * max(1, wanted))


def test_parity_goes_with_other_shares_of_its_columns(exact):
    target = [Parity("income", by="sex"), {"sex": {"F": 0.5}}, Share("income", {"high": 0.3}, bound="at_least")]
    rows = clone(exact).set_params(target=target).fit(synthetic_census(500, seed=2)).sample(40_000)
    assert gap(rows) < 0.015
    assert (rows["sex"] == "F").mean() == pytest.approx(0.5, abs=0.01)
    assert (rows["income"] == "high").mean() == pytest.approx(0.3, abs=0.01)


def test_shares_come_from_the_reference(exact):
    reference = synthetic_census(3000, seed=3).query("sex == 'F' or hours > 40")
    model = clone(exact).set_params(target=[Share("sex"), Share("occupation")])
    rows = model.fit(synthetic_census(500, seed=2), reference).sample(20_000)
    for column in ("sex", "occupation"):
        found, wanted = (t[column].value_counts(normalize=True) for t in (rows, reference))
        assert float((found - wanted).abs().max()) < 0.012


def test_a_reference_without_targets_is_matched_as_a_whole(census):
    few = ["sex", "income"]
    other = synthetic_census(3000, seed=3)[few]
    reference = pd.concat([other.query("sex == 'F'")[:800], other.query("sex == 'M'")[:200]])
    model = TableDebiaser(steps=60, pool=5000, width=16).fit(census[few], reference)
    assert model.heldout_gain_ == pytest.approx(0.32, abs=0.1)  # nats: KL of the shares of sex
    assert (model.sample(4000)["sex"] == "F").mean() == pytest.approx(0.8, abs=0.05)


# The estimator


def test_a_table_like_the_input_comes_out(fitted, census):
    rows = fitted.sample(3000)
    assert list(rows.columns) == list(census.columns)
    assert (rows.dtypes == census.dtypes).all()
    assert gap(rows) < 0.05 < gap(census)
    assert rows["years"].isna().mean() == pytest.approx(0.1, abs=0.03)
    assert rows["hours"].between(census["hours"].min(), census["hours"].max()).all()
    assert rows.attrs["repeated"] == 0
    pd.testing.assert_frame_equal(rows, fitted.sample(3000))


def test_rare_rows_cost_no_rejection(fitted):
    rows = fitted.sample(500, where={"sex": "F", "income": "high"})
    assert set(rows["sex"]) == {"F"}
    assert set(rows["income"]) == {"high"}
    assert rows.attrs["ess"] > 0.99  # the target's columns are drawn first
    assert rows.attrs["generated"] < 5000
    late = {"hours": pd.Interval(50, 99), "years": None, "occupation": ["care", "trade"]}
    rows = fitted.sample(500, where=late)
    assert rows["hours"].gt(50).all()
    assert rows["years"].isna().all()
    assert not (rows["occupation"] == "office").any()


def test_conditions_on_a_foreign_model_follow_the_tilt(exact):
    model = clone(exact).set_params(target=Parity("income", by="sex")).fit(synthetic_census(500, seed=2))
    rows = model.sample(5000, where={"occupation": "trade"})
    full = model.sample(40_000)
    full = full[full["occupation"] == "trade"]
    assert (rows["sex"] == "F").mean() == pytest.approx((full["sex"] == "F").mean(), abs=0.03)


def test_a_foreign_model_takes_the_dtypes_of_the_table(census):
    class Text(Bootstrap):
        def sample(self, n):
            return super().sample(n).astype({"sex": object, "hours": float, "years": "Float64"})

    table = census.drop(columns="hired")
    model = TableDebiaser({"sex": {"F": 0.5}}, model=Text(table), pool=4000).fit(table)
    assert (model.sample(100).dtypes == table.dtypes).all()
    model = TableDebiaser({"sex": {"F": 0.5}}, model=Text(table.assign(sex="X")), pool=4000)
    with pytest.raises(
        ValueError, match=r"model\.sample: expected cells of 'sex' as category, got others, such as 'X'"
    ):
        model.fit(table)


def test_a_saved_model_draws_the_same(fitted, census, tmp_path):
    same = TableDebiaser.load(fitted.save(tmp_path / "m"))
    pd.testing.assert_frame_equal(same.sample(50), fitted.sample(50))
    target = [Share("hours", {pd.Interval(0, 35): 0.4}), Mean("gain", 500.0)]
    other = clone(fitted).set_params(target=target, steps=1, pool=4000).fit(census)
    again = TableDebiaser.load(other.save(tmp_path / "n")).sample(50)
    pd.testing.assert_frame_equal(again, other.sample(50))


# Judgement and the command


def test_measures_know_copies_and_shifts():
    table = synthetic_census(1200, seed=5)
    train, test = table[::2], table[1::2]
    same = nearness(train, test, train)
    assert same["copies"] == 1 > same["copies_unseen"]
    assert same["nearer"] > 0.95
    assert nearness(train, test, synthetic_census(600, seed=6))["nearer"] == pytest.approx(0.5, abs=0.08)
    moved = marginal_distances(train, train.assign(sex="F"))
    assert moved["sex"] == pytest.approx((train["sex"] == "M").mean())
    assert sum(moved.values()) == pytest.approx(moved["sex"])
    shuffled = train.assign(income=train["income"].sample(frac=1, random_state=0).to_numpy())
    assert association_distance(train, train) == 0 < association_distance(train, shuffled)


def test_a_column_without_a_value_hinders_no_classifier():
    table = synthetic_census(400, seed=5).assign(empty=np.nan)
    assert train_on_made(table[::2], table[1::2], "income", by="sex")["accuracy"] > 0.7


def test_gaps_and_shares_lie_within_their_intervals():
    truth, covered = census_truth(), []
    for seed in range(12):
        table = synthetic_census(1000, seed=100 + seed)
        found = [parity_gap(table, "income", "sex"), *measured(table, Share("income", {"high": truth["high"]}))]
        wanted = [truth["gap"], truth["high"]]
        covered += [m.low <= w <= m.high for m, w in zip(found, wanted, strict=True)]
    assert np.mean(covered) > 0.85
    level = table.assign(sex=table["sex"].sample(frac=1, random_state=0).to_numpy())
    assert parity_gap(level, "income", "sex").low < 0.02


def test_the_command_writes_a_whole_folder(tmp_path):
    file, out = tmp_path / "census.csv.gz", tmp_path / "run"
    synthetic_census(400, seed=0).to_csv(file, index=False)
    fast = ["--steps", "20", "--width", "8", "--rows", "400", "--pool", "4000", "--out", str(out)]
    targets = ["--target", "income by sex", "--target", "hours: 40=0.5"]
    done = CliRunner().invoke(app, ["table", str(file), *targets, *fast])
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(out / "samples.csv")
    assert list(rows) == list(synthetic_census(1, seed=0))
    assert pd.to_datetime(rows["hired"]).dt.year.between(2000, 2024).all()  # seen to be dates
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["targets"][1]["tilted"]["value"] == pytest.approx((rows["hours"] == 40).mean()) != 0.45
    assert metrics["utility"]["tilted"]["auc"] > 0.5
    assert "gap of income by sex" in (out / "report.html").read_text()
    assert len(TableDebiaser.load(out).sample(3)) == 3
    again = CliRunner().invoke(app, ["table", str(file), "--date", "hired", *targets, *fast])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--target", "income on sex"], "--target: expected a parity, shares of a column, or JSON"),
        (["--target", '{"share"'], "--target: expected JSON"),
        (["--target", '{"share": ["sex", "income"], "shares": {"F": 1}}'], "--target: expected shares nested as"),
        (
            ["--target", "sex: F=0.5", "--drop", "visit"],
            "expected numbers in column 'pay', got 'inf' in 50 of 200",
        ),
        (["--target", "income by sex", "--drop", "age"], "--drop: expected columns of the table"),
        (["--target", "income by sex", "--date", "sex"], "--date: expected dates in 'sex'"),
        (
            ["--target", "income by sex"],
            r"identifiers in \['visit'\]; .* or --drop; dates: .* as 2020-12-31",
        ),
    ],
)
def test_mistakes_in_the_shell_end_in_one_line(tmp_path, option, message):
    file = tmp_path / "census.csv"
    table = synthetic_census(200, seed=0)
    table["visit"] = table["hired"].dt.strftime("%d.%m.%Y")
    if "pay" in message:
        table["pay"] = np.where(np.arange(200) % 4, 1.5, np.inf)
    table.to_csv(file, index=False)
    result = CliRunner().invoke(app, ["table", str(file), *option, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert re.search(message, result.stderr)
    assert not (tmp_path / "run").exists()


# Bad input

ROWS = pd.DataFrame({"x": ["a", "b"] * 20, "y": range(0, 80, 2), "z": [0.5, 1.5] * 20})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ROWS.assign(y=[f"id {i}" for i in range(40)]), r"biased: .* free text or identifiers in \['y'\]; leave"),
        (ROWS, r"biased: .* identifiers in \['y'\]"),
        (ROWS[::-1].sort_values("x"), r"biased: .* identifiers in \['y'\]"),
        (ROWS[["x", "x"]], r"biased: .*\['x'\] twice"),
        (ROWS[["x"]].iloc[:1], r"biased: expected at least 20 rows .* 1 × 1"),
        (ROWS[["x"]].assign(z=[np.inf, 1.0] * 20), r"finite numbers in 'z', got 20 infinite"),
        (ROWS[["x"]].assign(z=[1, "a"] * 20), r"one type in column 'z', got int and str"),
        (pd.DataFrame({"z": np.repeat([f"c{i}" for i in range(10_000)], 3)}), r"500 categories in 'z', got 10,000"),
        (ROWS[["x"]].assign(z=[pd.Timestamp("2020-01-01").date()] * 40), r"dates of 'z' as datetime64"),
        ({"x": [1]}, r"a pandas DataFrame, got dict"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_learned_are_named(table, message):
    with pytest.raises(ValueError, match=message):
        TableDebiaser({"x": {"a": 0.3}} if "x" in table else {"z": {"c1": 0.1}}, **FAST).fit(table)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"age": {"x": 0.5}}, r"target: expected columns of the table, got \['age'\]"),
        ({"sex": {"X": 0.5}}, r"target: expected rows with sex='X', got none"),
        ({"sex": {"F": 1.4}}, r"shares of 'sex'"),
        ({("sex", "income"): {"F": 0.1}}, r"shares of \('sex', 'income'\): expected tuples of 2 values, got \['F'\]"),
        (Mean("hours", 1e9), r"mean of 'hours' that the model's rows reach, got [\d.]+ at the nearest, 1e\+09 wanted"),
        ([{"sex": {"F": 0.2}}, Share("sex", {"M": 0.3})], r"reach together, got sex=. at the nearest|sex=[FM]: "),
        (Share("sex"), r"reference: expected a reference table"),
        (None, r"reference: expected a reference table"),
        ("parity", r"target: expected Share, Parity"),
    ],
)
def test_targets_that_cannot_be_met_are_named(exact, target, message):
    with pytest.raises(ValueError, match=message):
        clone(exact).set_params(target=target, pool=5000).fit(synthetic_census(500, seed=2))


def test_parity_of_a_column_with_itself_is_refused():
    with pytest.raises(ValueError, match="parity: expected different columns"):
        Parity("sex", by="sex")


def test_conditions_on_nothing_are_named(fitted):
    with pytest.raises(ValueError, match=r"where: expected columns of the table, got \['age'\]"):
        fitted.sample(5, where={"age": 3})
    with pytest.raises(ValueError, match=r"where: expected a value of 'sex' .* pass one of F, M"):
        fitted.sample(5, where={"sex": "X"})
    with pytest.raises(ValueError, match="expected a fitted model"):
        TableDebiaser().sample(5)
