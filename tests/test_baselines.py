"""Every method without a tilt: moves shares the right way, keeps to the budget, and its faults are seen."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from latentebm.evaluation import baselines
from latentebm.evaluation.baselines import BASELINES, Sampled, Task, conditional, importance_weighted, oversampled
from latentebm.evaluation.ratio import Ratio, fit_ratio, held_out_fifth
from latentebm.models.vae import VAE, ConditionalVAE
from latentebm.rng import seeded
from latentebm.training.fit_vae import fit_vae
from tests.conftest import bars

STEPS = 400


def shares(images: torch.Tensor) -> torch.Tensor:
    """Bars read by eye: bright left half, bright upper half, bright centre."""
    x = images[:, 0]
    left, upper = x[:, :, :2].mean((1, 2)), x[:, :2].mean((1, 2))
    scores = torch.stack([left, upper, x[:, 2:6, 2:6].mean((1, 2)) - 0.15], 1)
    scores[:, 0] -= x[:, :2, 4:].mean((1, 2))
    scores[:, 1] -= x[:, 4:, :2].mean((1, 2))
    return torch.bincount(scores.argmax(1), minlength=3) / len(x)


@pytest.fixture(scope="module")
def task() -> Task:
    """A VAE of bars in shares .7/.2/.1, and ninety balanced reference bars."""
    data = bars(3000, 1)
    rows = torch.cat([torch.nonzero(data.labels == k).flatten()[:n] for k, n in enumerate((700, 200, 100))])
    reference, rng = bars(90, 2), torch.Generator().manual_seed(0)
    settings = {"epochs": STEPS // 10, "batch_size": 100, "lr": 0.01, "precision": "fp32"}
    with seeded(0):
        vae = VAE((1, 8, 8), 2, width=32)
    fit_vae(vae, data.images[rows], generator=rng, **settings)
    return Task(
        vae=vae.requires_grad_(False),
        biased=data.images[rows],
        reference=reference.images,
        steps=STEPS,
        batch_size=100,
        lr=0.01,
        precision="fp32",
        pool=5000,
        labels=data.labels[rows],
        target=[1 / 3] * 3,
    )


def imbalance(fitted: Sampled) -> float:
    drawn = shares(fitted.sample(2000, generator=torch.Generator().manual_seed(1)).x)
    return float((drawn - 1 / 3).abs().sum() / 2)


def test_the_eye_reads_bars():
    data = bars(300, 5)
    assert torch.allclose(shares(data.float01()), torch.full((3,), 1 / 3), atol=1e-6)


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_method_balances_within_the_budget(name, task):
    before = {k: v.clone() for k, v in task.vae.state_dict().items()}
    fitted = BASELINES[name](task)
    assert fitted.steps <= STEPS
    assert all(torch.equal(v, before[k]) for k, v in task.vae.state_dict().items())
    if name == "untilted":
        assert imbalance(fitted) > 0.25
    else:
        assert imbalance(fitted) < 0.8 * imbalance(BASELINES["untilted"](task))


@pytest.mark.parametrize(("size", "steps"), [(1000, 7), (1000, 55), (40, 400), (3, 2), (1001, 400)])
def test_the_budget_is_kept_and_nearly_spent(size, steps, task):
    budget = dataclasses.replace(task, steps=steps)
    assert 0.8 * steps <= budget.fit(budget.fresh(), torch.zeros(size, 1, 8, 8)).steps <= steps


def test_same_seed_same_draws(task):
    one, two, other = (
        oversampled(dataclasses.replace(task, steps=20, seed=s)).sample(5, generator=torch.Generator()).x
        for s in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_weights_reach_the_loss(task):
    """With all weight on one class, the VAE makes that class alone; without it, it doesn't."""
    weights, made = (task.labels == 2).float() / (task.labels == 2).float().mean(), {}
    for name, w in (("weighted", weights), ("fault: unweighted", None)):
        vae = task.fresh()
        task.fit(vae, task.biased, weights=w)
        made[name] = shares(vae.decode(torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))))[2]
    assert made["weighted"] > 0.9
    assert made["fault: unweighted"] < 0.3


def test_flattened_weights_balance_less(task):
    whole, none = (imbalance(importance_weighted(task, flattening=a)) for a in (1.0, 0.0))
    assert whole < none - 0.05


def test_the_oracle_makes_the_class_it_is_asked_for(task):
    """Asked for one class only, and with the fault of swapped labels."""
    only = dataclasses.replace(task, target=[0.0, 0.0, 1.0])
    assert shares(conditional(only).sample(500, generator=torch.Generator()).x)[2] > 0.9
    swapped = dataclasses.replace(only, labels=(task.labels + 1) % 3)
    assert shares(conditional(swapped).sample(500, generator=torch.Generator()).x)[2] < 0.1


def test_weights_are_flattened_until_enough_of_them_count(task):
    fitted = BASELINES["likelihood-free weights"](task)
    drawn = fitted.sample(500, generator=torch.Generator().manual_seed(0))
    assert drawn.diagnostics["ess"] >= 0.8 * baselines.TARGET_ESS


def test_the_ratio_is_the_log_ratio_of_shares(rng):
    """Of two mixtures of black and white images, log-ratios are log(.8/.2) and log(.2/.8)."""
    white = torch.ones(1, 1, 8, 8)
    mixed = [torch.cat([0 * white] * m + [white] * (10 - m)).repeat(60, 1, 1, 1) for m in (2, 8)]
    ratio = fit_ratio(*mixed, steps=300, generator=rng)
    found = ratio.log_ratio(torch.cat([white, 0 * white]))
    assert found.tolist() == pytest.approx([1.386, -1.386], abs=0.35)


def test_bad_input(task):
    with pytest.raises(ValueError, match="labels: expected the class of each biased image"):
        conditional(dataclasses.replace(task, labels=None))
    with pytest.raises(ValueError, match="target: expected shares that sum to 1"):
        conditional(dataclasses.replace(task, target=[0.1, 0.1, 0.1]))
    with pytest.raises(ValueError, match="reference: expected at least 5 images"):
        dataclasses.replace(task, reference=task.reference[:4])
    with pytest.raises(ValueError, match="steps: expected a whole number"):
        dataclasses.replace(task, steps=0)
    with pytest.raises(ValueError, match="images: expected at least 5"):
        held_out_fifth(torch.zeros(3), torch.Generator())
    with pytest.raises(ValueError, match="labels: expected the class of each code"):
        ConditionalVAE((1, 8, 8), 2, n_classes=3, width=16).decode(torch.zeros(1, 2))
    assert Ratio((1, 8, 8)).temperature == 1
