"""Small references: a share in one direction of many features comes back, and what held-out items reject is no tilt."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.features import FeatureEnergy
from latentebm.models.seen.named_features import Components, Pixels, named_features
from latentebm.models.seen.step_energy import StepEnergy
from latentebm.models.storage.tilt_folder import load_tilt
from latentebm.models.tilts import LatentTilt
from latentebm.tilting.any_model import flat, tilt_generator
from latentebm.tilting.few.cell_fit import CellFit, effective
from latentebm.tilting.few.cells import Cells
from latentebm.tilting.few.penalised import most_likely
from latentebm.tilting.few.pursuit import _replaces, _strength, pursue
from latentebm.tilting.few.share_ratios import edges_of
from latentebm.tilting.few.steps import Found
from latentebm.tilting.supports import NoTiltWarning, SupportWarning

DIM, CUT = 16, 0.8416  # a fifth of a normal distribution lies above


def draws(n: int, seed: int) -> torch.Tensor:
    """Sixteen features that go together in fours."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g).repeat_interleave(4, 1) + 0.3 * torch.randn(n, DIM, generator=g)


def score(x: torch.Tensor) -> torch.Tensor:
    s = x[:, :4].mean(1)
    return s / (1 + 0.09 / 4) ** 0.5


def reference(each: int, seed: int) -> torch.Tensor:
    x = draws(60 * each, seed)
    return torch.cat([x[score(x) > CUT][:each], x[score(x) <= CUT][:each]])


@pytest.fixture(scope="module")
def made() -> torch.Tensor:
    return draws(6000, 1)


def found_share(made: torch.Tensor, real: torch.Tensor) -> tuple[float, float]:
    energy = pursue(real, made, generator=torch.Generator().manual_seed(0))
    w = (-energy(made)).double().softmax(0)
    return float(w[score(made) > CUT].sum()), float(1 / w.square().sum() / len(w))


@pytest.mark.parametrize(("each", "within", "least"), [(100, 0.05, 0.3), (25, 0.08, 0.25)])
def test_a_share_comes_back(each, within, least, made):
    share, ess = found_share(made, reference(each, 2))
    assert share == pytest.approx(0.5, abs=within)
    assert ess > least


def test_without_the_bootstrap_the_share_falls_short(made, monkeypatch):
    monkeypatch.setattr("latentebm.tilting.few.pursuit.STRENGTHS", torch.ones(1).double().numpy())
    assert found_share(made, reference(25, 2))[0] < 0.42


def test_sharp_borders_ask_for_more_strength_and_a_stronger_fit_keeps_half_of_its_draws(made):
    """Hard cells hold the draws' mean weights; a cell's steps are worn away by the fit, which a soft truth is not."""
    draws, real = made[:1000].double().numpy(), reference(25, 2).double().numpy()
    fit = CellFit.of(Cells.of(draws, np.random.default_rng(0)), draws, real, np.arange(50) % 5)
    sharp = fit.cells.sharpened(draws, fit.log_weight, np.random.default_rng(1))
    assert len(np.unique(sharp.round(9))) <= 20
    assert np.exp(sharp).mean() == pytest.approx(np.exp(fit.log_weight - fit.log_weight.max()).mean())
    truths = (fit.log_weight, sharp)
    soft, hard = (_strength(draws, [truth], fit.again, 50, np.random.default_rng(0)) for truth in truths)
    assert hard > soft + 0.2
    accepted = fit.accepted(2.5, real, np.arange(50) % 5)
    assert 1 <= accepted < 2.5
    assert effective(accepted * fit.log_weight) >= 0.5 * effective(fit.log_weight)


def test_the_penalised_maximum_has_its_closed_form():
    """Draws N(0, I), a reference N(m, I): θ = m / (1 + ρ)."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 2))
    draws = (draws - draws.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(draws.T, bias=True))).T
    shift, penalty = np.array([0.5, -0.3]), 0.25
    assert most_likely(shift, draws, penalty) == pytest.approx(shift / (1 + penalty), abs=0.03)


@pytest.mark.parametrize("start", [0.0, 3.0, -20.0])
def test_the_maximum_is_found_from_afar_where_few_draws_lie_far_out(start):
    """There the gradient is zero: the tilted draws have the reference's mean, but for the ridge."""
    draws = np.random.default_rng(0).standard_t(2.5, (2000, 3))
    shift, penalty = np.array([0.4, 0.0, -0.2]), 0.01
    theta = most_likely(shift, draws, penalty, np.full(3, start))
    weight = softmax(draws @ theta)
    assert weight @ draws + penalty * theta == pytest.approx(shift, abs=1e-3)


def test_tilted_draws_have_the_reference_s_shares_of_cells_but_for_the_penalty():
    """Two points of equal number; a of M + a items stand at the draws' shares."""
    draws = np.repeat([[0.0], [1.0]], 500, axis=0)
    cells = Cells.of(draws, np.random.default_rng(0))
    reference = np.repeat([[0.0], [1.0]], [10, 30], axis=0)
    fit = CellFit.of(cells, draws, reference, np.arange(40) % 5)
    theta = most_likely(cells.columns(reference).mean(0), fit.made, 1e-9)
    assert np.exp(fit.made @ theta)[500:].sum() / np.exp(fit.made @ theta).sum() == pytest.approx(0.75, abs=1e-3)
    tilted = np.exp(fit.log_weight)[500:].sum() / np.exp(fit.log_weight).sum()
    assert fit.pseudo == 4
    assert tilted == pytest.approx((30 + 2) / 44, abs=0.01)


def test_the_energy_is_what_was_fitted_and_has_a_gradient(made):
    draws, real = made[:2000].double().numpy(), reference(50, 2).double().numpy()
    cells = Cells.of(draws, np.random.default_rng(0))
    fit = CellFit.of(cells, draws, real, np.arange(100) % 5)
    energy, x = fit.energy(1.5), made[:2000].requires_grad_()
    value = energy(x)
    expected = torch.from_numpy(-1.5 * fit.log_weight)
    shift = value.detach().double() - expected  # log-weights are known up to a constant
    assert (shift - shift.mean()).abs().max() < 1e-3
    (slope,) = torch.autograd.grad(value.sum(), x)
    moved = (energy(x + 1e-2 * slope) - value).detach()
    assert (moved > 0).float().mean() > 0.99
    assert float(value.detach().abs().max()) <= energy.limit + 1e-4
    # Where no draw of the fit lay, no draw weighs more than the heaviest of these.
    afar = energy(30 * torch.randn(2000, DIM, generator=torch.Generator().manual_seed(0)))
    assert value.min() - 1e-4 <= afar.min()
    assert afar.max() <= value.max() + 1e-4


def test_it_is_stored(made, tmp_path, rng):
    cells = Cells.of(made[:1000].double().numpy(), np.random.default_rng(0))
    fit = CellFit.of(cells, made[:1000].double().numpy(), reference(25, 2).double().numpy(), np.arange(50) % 5)
    model = WrappedModel(nn.Linear(4, DIM), 4)
    tilt = LatentTilt(model, FeatureEnergy(model, flat, fit.energy(1.0)))
    tilt.save(tmp_path)
    z = torch.randn(9, 4, generator=rng)
    assert torch.equal(load_tilt(tmp_path, model).energy(z), tilt.energy(z))


def test_a_flag_comes_back(rng):
    """Features of two values: edges lie between values, not on them."""
    made = (torch.rand(4000, 1, generator=rng) < 0.2).float()
    energy = pursue(torch.tensor([[1.0], [0.0]]).repeat(25, 1), made, generator=rng)
    assert float((-energy(made)).softmax(0)[made[:, 0] == 1].sum()) == pytest.approx(0.5, abs=0.05)
    assert edges_of(np.array([0.0, 0.0, 0.0, 1.0]), 4).tolist() == [0.5, 0.5, 0.5]


def test_steps_that_collapse_do_not_replace_cells():
    held = np.full(40, 5.0) + 0.1 * (np.arange(40) % 2)
    cells = SimpleNamespace(log_weight=np.zeros(1000), best=np.zeros(40))
    even, one = np.zeros(1000), 20.0 * np.eye(1000)[0]
    assert _replaces(Found([None], even, held), cells)
    assert not _replaces(Found([None], one, held), cells)
    assert not _replaces(Found([None], even, np.where(np.arange(40) % 2, 5.0, -4.9)), cells)


def classes(digit: torch.Tensor, seed: int) -> torch.Tensor:
    """Probabilities of a classifier that is sometimes wrong."""
    noise = 1.5 * torch.randn(len(digit), 5, generator=torch.Generator().manual_seed(seed))
    return (6 * torch.nn.functional.one_hot(digit, 5) + noise).softmax(1)


def spread(energy, made: torch.Tensor, digit: torch.Tensor) -> float:
    w = (-energy(made)).double().softmax(0)
    return sum(abs(float(w[digit == k].sum()) - 0.2) for k in range(5)) / 2


def test_five_classes_come_back_equal(rng):
    shares = torch.tensor([0.12, 0.33, 0.28, 0.20, 0.07])
    digit = shares.multinomial(4000, replacement=True, generator=rng)
    made, real = classes(digit, 1), classes(torch.arange(5).repeat(25), 2)
    assert spread(lambda x: 0 * x[:, 0], made, digit) > 0.19
    assert spread(pursue(real, made, generator=rng), made, digit) < 0.045


def test_a_step_rises_over_a_fiftieth():
    one = torch.ones(1, 1)
    energy = StepEnergy(torch.zeros(1), one, -2 * one, 8 * one)
    found = energy(torch.tensor([[-3.0], [-2.0], [-1.99], [-1.98], [9.0]]))
    assert found.tolist() == pytest.approx([0, 0, -4, -8, -8], abs=1e-3)


def test_a_reference_like_the_draws_gives_no_tilt(made, rng):
    energy = pursue(draws(50, 3), made, generator=rng)
    assert energy.limit == 0
    assert energy(made).abs().max() == 0


def test_no_tilt_is_said(rng):
    model = WrappedModel(lambda z: 3 * z, 4)
    with pytest.warns(NoTiltWarning, match="no tilt"):
        tilt = tilt_generator(
            model, 3 * torch.randn(40, 4, generator=rng), features=lambda x: x, pool=3000, generator=rng
        )
    assert tilt.energy(torch.randn(9, 4, generator=rng)).abs().max() == 0


def test_a_reference_beyond_all_draws_is_called_out(rng):
    model = WrappedModel(lambda z: z, 2)
    with pytest.warns(SupportWarning, match="lie beyond all"):
        tilt_generator(model, 20 + torch.randn(40, 2, generator=rng), pool=2000, generator=rng)


def test_named_features_see_what_they_say(rng):
    x = torch.rand(300, 3, 8, 8, generator=rng)
    assert torch.allclose(named_features("pixels:1", x)(x)[:, 0], x.mean((1, 2, 3)))
    flat = x.flatten(1) - x.flatten(1).mean(0)
    first = torch.linalg.svd(flat, full_matrices=False)[2][0]
    scores = named_features("pca:3", x)(x)
    assert abs(torch.corrcoef(torch.stack([flat @ first, scores[:, 0]]))[0, 1]) == pytest.approx(1, abs=1e-3)
    assert isinstance(named_features("pca:3", x), Components)
    assert isinstance(named_features("pixels:4", x), Pixels)


def test_weights_are_read_where_they_lie_and_never_fetched(tmp_path, monkeypatch):
    from torchvision.models import shufflenet_v2_x0_5

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    x = torch.rand(2, 1, 16, 16)
    with pytest.raises(ValueError, match=r"features: expected weights in .*, got none; .* curl -L"):
        named_features("torchvision:shufflenet_v2_x0_5", x)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    net = shufflenet_v2_x0_5(weights=None)
    torch.save(net.state_dict(), tmp_path / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth")
    features = named_features("torchvision:shufflenet_v2_x0_5", x)
    assert features(x).shape == (2, 1024)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("logits", torch.rand(4, 1, 8, 8), "features: expected one of .*, got 'logits'"),
        ("pixels:x", torch.rand(4, 1, 8, 8), "features: expected a whole number of at least 1, got .x."),
        ("pixels:8", torch.rand(4, 3), r"features: expected images \(N, C, H, W\)"),
        ("torchvision:resnet18", 9 * torch.rand(4, 1, 8, 8), r"features: expected images in \[0, 1\] or \[-1, 1\]"),
        ("torchvision:nothing", torch.rand(4, 1, 8, 8), "features: expected a classification network"),
        ("timm:nothing", torch.rand(4, 1, 8, 8), "features: expected a network of timm"),
        ("pca:3", torch.ones(4, 8), "features: expected draws that differ"),
    ],
)
def test_bad_names(name, data, message):
    with pytest.raises(ValueError, match=message):
        named_features(name, data)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda x: x - x.mean(0), "features: expected those of an item whatever its batch"),
        (lambda x: torch.ones(len(x), 1), "features: expected values that differ between draws"),
        (lambda x: x / 0, "features: expected finite numbers"),
    ],
)
def test_bad_features(features, message, rng):
    with pytest.raises(ValueError, match=message):
        tilt_generator(WrappedModel(lambda z: z, 2), torch.randn(30, 2), features=features, generator=rng)


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.5), (127.5, 127.5)])
def test_another_scale_is_noticed(scale, shift, rng):
    model = WrappedModel(lambda z: torch.tanh(z).view(-1, 1, 2, 2), 4)
    x = scale * torch.tanh(torch.randn(30, 1, 2, 2, generator=rng)) + shift
    with pytest.raises(ValueError, match=r"reference: expected images on the model's scale"):
        tilt_generator(model, x, features="pixels:2", generator=rng)
