"""Missing-data mechanisms: rates, closed forms, invariances, kinds of data, bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from latentebm.missing.mechanisms import (
    MAR,
    MCAR,
    ByClass,
    ColumnDriven,
    ImagePixels,
    MissingDataWarning,
    MNARDataset,
    Patterns,
    SelfMasking,
    make_missing,
    make_missing_values,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*no observed cell left")
N = 20_000
X = np.random.default_rng(0).normal(size=(N, 6)) @ np.random.default_rng(1).normal(size=(6, 6)) + 3.0
LINKED = [
    cls(kind=kind, direction=direction, **more)
    for kind in ("hard", "probit", "logistic")
    for direction in ("high", "tails")
    for cls, more in ((SelfMasking, {}), (MAR, {"columns": [0, 2]}), (ColumnDriven, {"driver": 1}))
]


@pytest.mark.parametrize("mechanism", [MCAR(), *LINKED], ids=repr)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 0.9])
def test_rate_is_hit_in_every_column(mechanism, rate):
    _, mask = make_missing(X, mechanism, rate=rate, random_state=0)
    columns = [1, 3, 4, 5] if isinstance(mechanism, MAR) else range(6)
    # 4 binomial standard deviations, or one cell where nothing is random.
    bound = 4 * np.sqrt(rate * (1 - rate) / N) + 1 / N
    assert all(abs((~mask[:, j]).mean() - rate) <= bound for j in columns)


def test_patterns_rate_is_hit():
    mechanism = Patterns([[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1]], frequencies=[0.25, 0.75])
    _, mask = make_missing(X, mechanism, rate=0.3, random_state=0)
    rows = 1 - mask[:, :3].min(axis=1).mean()
    share = 0.3 * 3 / (0.25 * 2 + 0.75)
    assert abs(rows - share) < 4 * np.sqrt(share * (1 - share) / N)
    # MAR by default: rows with a large sum of what stays are hit.
    hit = ~mask[:, 2]
    assert (X[hit][:, [0, 1, 3, 4, 5]] / X.std(0)[[0, 1, 3, 4, 5]]).sum(1).mean() > X[~hit].sum() / X.std() / N


@pytest.mark.parametrize("masking", [SelfMasking])
@pytest.mark.parametrize("intercept", [-1.0, 0.7])
@pytest.mark.parametrize("slope", [0.5, 3.0])
def test_probit_self_masking_rate_and_mean(intercept, slope, masking):
    # P(miss|x) = Φ(a + b(x − μ)/s): rate Φ(t), t = a/√(1+b²); E[x|miss] = μ + s·b/√(1+b²)·φ(t)/Φ(t).
    n, mu, s = 200_000, 5.0, 2.0
    x = np.random.default_rng(2).normal(mu, s, size=(n, 2))
    _, mask = make_missing(x, masking("probit", intercept=intercept, slope=slope, columns=[0]), random_state=3)
    t, reach = intercept / np.sqrt(1 + slope**2), slope / np.sqrt(1 + slope**2)
    missing = ~mask[:, 0]
    assert abs(missing.mean() - norm.cdf(t)) < 5 * np.sqrt(norm.cdf(t) * norm.sf(t) / n)
    mean = mu + s * reach * norm.pdf(t) / norm.cdf(t)
    seen = mu - s * reach * norm.pdf(t) / norm.sf(t)
    assert abs(x[missing, 0].mean() - mean) < 5 * s / np.sqrt(missing.sum())
    assert abs(x[~missing, 0].mean() - seen) < 5 * s / np.sqrt((~missing).sum())


@pytest.mark.parametrize("mechanism", [MCAR(), MAR([0, 2]), MAR([0, 2], kind="hard"), ByClass({0: 0.4, 1: 0.1})])
def test_masked_cells_do_not_change_the_mask(mechanism):
    y = np.arange(N) % 2
    _, mask = make_missing(X, mechanism, None if isinstance(mechanism, ByClass) else 0.4, y=y, random_state=5)
    changed = np.where(mask, X, X**2 + 1)
    if isinstance(mechanism, MCAR):
        changed = X[::-1] * 7
    _, again = make_missing(changed, mechanism, None if isinstance(mechanism, ByClass) else 0.4, y=y, random_state=5)
    assert (mask == again).all()


@pytest.mark.parametrize("mechanism", [SelfMasking(), ColumnDriven(1)])
def test_masked_cells_do_change_an_mnar_mask(mechanism):
    _, mask = make_missing(X, mechanism, rate=0.4, random_state=5)
    _, again = make_missing(np.where(mask, X, -X), mechanism, rate=0.4, random_state=5)
    assert (mask != again).any()


def test_same_seed_same_mask_and_input_untouched():
    before = X.copy()
    first, second, third = (make_missing(X, MCAR(), 0.3, random_state=s)[1] for s in (1, 1, 2))
    assert (first == second).all()
    assert (first != third).any()
    assert (before == X).all()


def test_kinds_come_back_as_they_went_in():
    frame = pd.DataFrame(X[:50], columns=list("abcdef"), index=range(100, 150))
    holed, mask = make_missing(frame, SelfMasking(columns=["b"]), 0.3, random_state=0)
    assert (holed.isna() == ~mask).all(axis=None)
    assert list(holed.index) == list(frame.index)
    _, array_mask = make_missing(X[:50], SelfMasking(columns=[1]), 0.3, random_state=0)
    assert (mask.to_numpy() == array_mask).all()
    tensor = torch.tensor(X[:50], dtype=torch.float32).reshape(50, 2, 3)
    t_holed, t_mask = make_missing(tensor, MCAR(), 0.3, random_state=0)
    assert t_holed.dtype == tensor.dtype
    assert t_holed.shape == t_mask.shape == tensor.shape
    assert torch.equal(t_holed.isnan(), ~t_mask)
    integers, _ = make_missing(np.arange(300).reshape(100, 3), MCAR(), 0.1, random_state=0)
    assert integers.dtype == np.float64
    words = pd.DataFrame({"w": ["a", "b"] * 50, "x": np.arange(100.0)})
    assert make_missing(words, MCAR(), 0.2, random_state=0)[0]["w"].isna().any()


def test_nan_already_present_stays_and_does_not_count():
    holed = X.copy()
    holed[: N // 2, 1] = np.nan
    out, mask = make_missing(holed, SelfMasking(columns=[1]), rate=0.5, random_state=0)
    assert not mask[: N // 2, 1].any()
    assert abs((~mask[N // 2 :, 1]).mean() - 0.5) < 4 * np.sqrt(0.25 / (N / 2))
    assert (np.isnan(out) == ~mask).all()
    half = slice(N // 2, None)
    assert X[half, 1][~mask[half, 1]].mean() > X[half, 1][mask[half, 1]].mean() + 0.5


@pytest.mark.parametrize("masking", [SelfMasking])
@pytest.mark.parametrize("kind", ["hard", "probit", "logistic"])
def test_directions_remove_what_they_say(kind, masking):
    z = np.random.default_rng(3).normal(size=(N, 2))
    lost = {}
    for direction in ("high", "low", "tails", "middle"):
        _, mask = make_missing(z, masking(kind, direction, [0], slope=4.0), 0.3, random_state=0)
        lost[direction] = z[~mask[:, 0], 0]
    assert lost["high"].mean() > 0.8
    assert lost["low"].mean() < -0.8
    assert abs(lost["tails"].mean()) < 0.2 < 1.0 < np.abs(lost["tails"]).mean()
    assert np.abs(lost["middle"]).mean() < 0.5


@pytest.mark.parametrize("pixels", [ImagePixels])
def test_image_pixels_and_classes(pixels):
    images = np.random.default_rng(0).random((200, 1, 8, 8))
    y = np.arange(200) % 10
    _, mask = make_missing(images, pixels(0.5, "center", digits=[3, 8]), y=y)
    inside = np.zeros((8, 8), dtype=bool)
    inside[2:6, 2:6] = True
    expected = (images >= 0.5) & inside & np.isin(y, [3, 8])[:, None, None, None]
    assert (~mask == expected).all()
    _, mask = make_missing(images, ImagePixels(0.5, direction="low"), rate=0.25, random_state=0)
    assert abs((~mask).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / images.size)
    assert images[~mask].max() <= 0.5
    _, mask = make_missing(X, ByClass({1: 0.4, 2: 0.2}), rate=0.15, y=np.arange(N) % 3, random_state=0)
    rates = [(~mask[c::3]).mean() for c in range(3)]
    assert rates == pytest.approx([0, 0.3, 0.15], abs=4 * np.sqrt(0.25 / (2 * N)))


def test_three_shares_add_up():
    mask, again = (make_missing_values(X, mcar_rate=0.1, mar_rate=0.2, mnar_rate=0.3, random_state=0)[1] for _ in "ab")
    assert mask[:, 0].all()
    assert abs((~mask[:, 1:]).mean() - 0.6) < 4 * np.sqrt(0.6 * 0.4 / (5 * N))
    assert (again == mask).all()
    _, only_mnar = make_missing_values(X, mnar_rate=0.3, random_state=0)
    assert X[only_mnar[:, 1], 1].mean() < X[:, 1].mean()


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine of one processor
@pytest.mark.parametrize("workers", [0, 2])
def test_dataset_is_deterministic_for_any_loading(workers):
    x, y = torch.rand(60, 1, 4, 4), torch.arange(60) % 10
    items = MNARDataset(TensorDataset(x, y), ImagePixels(0.5, digits=[3, 8]), seed=1)
    batches = list(DataLoader(items, batch_size=20, num_workers=workers))
    assert [len(part) for part in batches[0]] == [20, 20, 20]
    holed, mask, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = (x >= 0.5) & torch.isin(y, torch.tensor([3, 8]))[:, None, None, None]
    assert torch.equal(~mask, expected)
    assert torch.equal(holed.isnan(), expected)
    assert torch.equal(labels, y)
    same, other = (MNARDataset(x, MCAR(), rate=0.5, seed=s, fill=0.0)[7] for s in (4, 4))
    assert torch.equal(same[0], other[0])
    assert (same[0][~same[1]] == 0).all()


def test_dataset_over_torchvision():
    fake = FakeData(20, (1, 8, 8), 3, transform=ToTensor(), random_offset=5)
    items = MNARDataset(fake, ByClass({0: 0.5, 1: 0.1}), seed=0)
    x, mask, y = items[3]
    assert torch.equal(x[mask], fake[3][0][mask])
    assert int(y) == int(fake[3][1])
    assert all(items[i][1].all() for i in range(20) if int(fake[i][1]) == 2)


HOLED = np.array([[np.nan, 1], [2, 3], [4, 4]])
BAD = [
    ({"rate": 1.0}, r"rate: expected a share of \[0, 1\)"),
    ({"rate": -0.1}, "rate: expected"),
    ({"rate": float("nan")}, "rate: expected"),
    ({"rate": "much"}, "rate: expected"),
    ({"rate": None}, "rate: expected the share"),
    ({"mechanism": "mcar", "rate": 0.1}, "mechanism: expected"),
    ({"X": np.full((4, 2), np.inf), "rate": 0.1}, "infinite values in column 0"),
    ({"X": np.ones(4), "rate": 0.1}, "X: expected at least one row"),
    ({"X": np.ones((0, 4)), "rate": 0.1}, "X: expected at least one row"),
    ({"X": [[1.0]], "rate": 0.1}, "X: expected a numpy array"),
    ({"mechanism": MCAR([9]), "rate": 0.1}, "columns: expected names or numbers"),
    ({"mechanism": MCAR(["age"]), "rate": 0.1}, "columns: expected names or numbers"),
    ({"mechanism": SelfMasking(), "X": pd.DataFrame({"c": ["a", "b"]}), "rate": 0.1}, "text in 'c'"),
    ({"mechanism": SelfMasking(intercept=0.0), "rate": 0.1}, "either a rate or an intercept"),
    ({"mechanism": MAR([0], [0, 1]), "rate": 0.1}, "targets: expected columns other than the drivers"),
    ({"mechanism": MAR([0]), "X": HOLED, "rate": 0.1}, "fully observed drivers"),
    ({"mechanism": ColumnDriven(0), "X": HOLED, "rate": 0.1}, "driver: expected a complete"),
    ({"mechanism": ByClass({0: 0.1})}, "y: expected labels"),
    ({"mechanism": ByClass({7: 0.1}), "y": np.zeros(N)}, "labels that occur"),
    ({"mechanism": ByClass({0: 0.1}), "y": np.zeros(3)}, "y: expected labels of shape"),
    ({"mechanism": ByClass({0: 0.5}), "y": np.arange(N) % 2, "rate": 0.6}, "rate: expected at most 0.5"),
    ({"mechanism": ImagePixels()}, "X: expected images"),
    ({"mechanism": ImagePixels(box=(0, 9, 0, 2)), "X": np.ones((2, 4, 4))}, "box: expected limits"),
    ({"mechanism": ImagePixels(), "X": np.full((2, 4, 4), 255.0)}, "threshold: expected one on the images' scale"),
    ({"mechanism": ImagePixels(2.0), "X": np.ones((2, 4, 4)), "rate": 0.5}, "rate: expected at most 0"),
    ({"mechanism": Patterns([[0, 1]]), "rate": 0.5}, "patterns: expected 6 columns"),
    ({"mechanism": Patterns([[0, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1]]), "rate": 0.6}, "rate: expected at most 0.5"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_input_names_the_fix(bad, message):
    with pytest.raises(ValueError, match=message):
        make_missing(**{"X": X, "mechanism": MCAR(), **bad})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SelfMasking("soft"), "kind: expected one of"),
        (lambda: MAR([0], direction="up"), "direction: expected one of"),
        (lambda: SelfMasking(slope=-1), "slope: expected"),
        (lambda: ByClass({0: 1.5}), "rates"),
        (lambda: Patterns([[1, 1]]), "patterns: expected"),
        (lambda: Patterns([[1, 0]], weights=[[1.0]]), "weights: expected"),
        (lambda: Patterns([[1, 0]], frequencies=[0.5]), "frequencies: expected"),
        (lambda: MNARDataset([], MCAR(), rate=0.1), "dataset: expected at least one"),
        (lambda: MNARDataset([(3, 0)], MCAR(), rate=0.1), "first entry is a tensor"),
        (lambda: make_missing_values(X, mcar_rate=0.5, mar_rate=0.5), "rates: expected a sum below 1"),
        (lambda: make_missing_values(X[:, :1], mcar_rate=0.5), "X: expected at least two columns"),
        (lambda: make_missing(X, faulty(MCAR, "remove", lambda *_: [([0], [True])])()), "mechanism: expected boolean"),
    ],
)
def test_bad_settings_name_the_fix(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_empty_column_stays_empty_and_is_said():
    with pytest.warns(MissingDataWarning, match="and 1 columns have no observed cell"):
        _, mask = make_missing(np.where(np.arange(6) == 1, np.nan, X), SelfMasking(), rate=0.3, random_state=0)
    assert not mask[:, 1].any()
    assert mask[:, [0, 2, 3, 4, 5]].any(axis=0).all()


def test_constant_column_and_empty_rows_are_said():
    flat = np.ones((1000, 2))
    with pytest.warns(MissingDataWarning, match="constant"):
        _, mask = make_missing(flat, SelfMasking(columns=[0]), rate=0.3, random_state=0)
    # Nothing to depend on: the rate is still met, at random.
    assert abs((~mask[:, 0]).mean() - 0.3) < 4 * np.sqrt(0.21 / 1000)
    with pytest.warns(MissingDataWarning, match="rows and 0 columns have no observed cell"):
        make_missing(flat, MCAR(), rate=0.9, random_state=0)


def faulty(cls, name, change):
    """A subclass whose method is changed: `change` gets the honest method, then its arguments."""
    honest = getattr(cls, name)
    return type("Faulty", (cls,), {name: lambda self, *given: change(lambda *g: honest(self, *g), *given)})


def shifted_labels(remove, table, *given):
    table.y = np.roll(table.y, 1)
    return remove(table, *given)


FLIPPED = faulty(SelfMasking, "score", lambda score, *given: -score(*given))
STEEP = faulty(SelfMasking, "chances", lambda chances, score, rate: chances(1.2 * score, rate))
EAGER = faulty(SelfMasking, "chances", lambda chances, *given: np.minimum(1.05 * chances(*given), 1.0))
PEEKING = faulty(MAR, "remove", lambda remove, *given: SelfMasking().remove(*given))
FAULTS = {
    "direction": lambda: test_directions_remove_what_they_say("logistic", FLIPPED),
    "slope": lambda: test_probit_self_masking_rate_and_mean(0.7, 3.0, STEEP),
    "rate": lambda: test_rate_is_hit_in_every_column(EAGER(), 0.5),
    "own value": lambda: test_masked_cells_do_not_change_the_mask(PEEKING([0])),
    "labels": lambda: test_image_pixels_and_classes(faulty(ImagePixels, "remove", shifted_labels)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(fault):
    with pytest.raises(AssertionError):
        FAULTS[fault]()


def test_rates_count_the_cells_that_are_there():
    rng = np.random.default_rng(0)
    images, gone = rng.random((4000, 4, 4)), rng.random((4000, 4, 4)) < 0.5
    mask = make_missing(np.where(gone, np.nan, images), ImagePixels(0.5), 0.3, random_state=0)[1]
    assert abs((~mask)[~gone].mean() - 0.3) < 0.02
    y = np.repeat([0, 1], 5000)
    table = np.where((y == 0) & (rng.random(10_000) < 0.8), np.nan, 1.0)[:, None]
    mask = make_missing(table, ByClass({0: 0.5, 1: 0.1}), 0.2, y=y, random_state=0)[1]
    assert abs((~mask)[~np.isnan(table)].mean() - 0.2) < 0.02


def test_text_times_and_strange_labels():
    holed, mask = make_missing(np.array([["a", "b"]] * 50), MCAR(), 0.5, random_state=0)
    assert set(holed[mask]) == {"a", "b"}
    assert all(value != value for value in holed[~mask])
    times = pd.DataFrame({"t": pd.to_datetime(["2020-01-01", None, "2020-01-03"]), "x": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="times in 't'"):
        make_missing(times, MAR(["t"]), 0.3)
    with pytest.raises(ValueError, match="digits: expected labels that occur"):
        make_missing(np.ones((3, 2, 2)), ImagePixels(0.5, digits=[42]), y=np.arange(3))
    with pytest.raises(ValueError, match="complete columns where patterns remove"):
        make_missing(np.array([[np.nan, 1.0], [1.0, 2.0]]), Patterns([[0, 1]]), 0.3)


@pytest.mark.parametrize(
    "mechanism",
    [MCAR([0, 0]), MCAR([-1, 5]), MCAR([True, *[False] * 5]), SelfMasking(columns=[0, 0]), MAR([2], [0, 0])],
    ids=repr,
)
def test_a_column_named_twice_or_by_a_flag_loses_its_share_once(mechanism):
    _, mask = make_missing(X, mechanism, 0.3, random_state=0)
    lost = (~mask).mean(0)
    assert abs(lost[lost > 0] - 0.3).max() < 4 * np.sqrt(0.21 / N)
    assert (lost > 0).sum() == 1
    with pytest.raises(ValueError, match="6 flags, one per column"):
        make_missing(X, MCAR([True, False]), 0.3)


@pytest.mark.parametrize("unit", [1e-200, 1e-20, 1e200])
def test_thresholds_follow_the_data_s_own_scale(unit):
    assert (make_missing(X * unit, SelfMasking(), 0.3, random_state=0)[1].mean(0) < 0.8).all()


def test_labels_are_read_where_a_mechanism_needs_them():
    boxes = [(torch.ones(3), {"boxes": i}) for i in range(40)]
    assert len(MNARDataset(boxes, MCAR(), rate=0.3)) == 40
    with pytest.raises(ValueError, match="second entry is one number or text, got dict"):
        MNARDataset(boxes, ByClass({1: 0.5}))
    for labels in (["cat", "dog"], [torch.tensor([1]), torch.tensor(0)], [np.int64(1), 0], [True, False]):
        items = [(torch.ones(50), labels[i % 2]) for i in range(40)]
        rate = {"cat" if labels[0] == "cat" else 1: 0.5}
        lost = (~MNARDataset(items, ByClass(rate)).mask).float().mean(1)
        assert (lost[1::2] == 0).all()
        assert abs(lost[::2].mean() - 0.5) < 4 * (0.25 / 1000) ** 0.5
