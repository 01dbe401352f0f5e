"""The fit loop, what it keeps, and the fit of an energy to a known ratio."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from latentebm.data.batches import Minibatches
from latentebm.ebm.jem import JEMRecipe
from latentebm.ebm.learned_sampler import AmortizedRecipe
from latentebm.ebm.maximum_likelihood import MCMCRecipe
from latentebm.models.energies import EnergyNet
from latentebm.models.vae import VAE
from latentebm.objectives.tilt_losses import log_partition, posterior_score_loss
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.held_out import held_out_gain
from latentebm.tilting.negatives import Negatives
from latentebm.tilting.objectives import Amortized, Contrastive, Jensen
from latentebm.tilting.sides import Codes
from latentebm.training.fit import DivergedError, fit
from latentebm.training.fit_vae import bf16_pays, fit_vae
from latentebm.training.keep import BestState, Guard
from latentebm.training.optimisation import Optimisation


def test_best_state_is_kept_member_by_member():
    net = EnergyNet(1, hidden=(2,), members=2)
    keeper = BestState(net)
    for step, score in enumerate([[3.0, 3.0], [1.0, 4.0], [2.0, 2.0]]):
        for p in net.parameters():
            p.data.fill_(float(step))
        keeper.update(torch.tensor(score))
    keeper.restore()
    assert net.weights[0][0].unique().item() == 1
    assert net.weights[0][1].unique().item() == 2
    assert keeper.best.tolist() == [1.0, 2.0]


def test_nan_scores_are_never_the_best():
    net = nn.Linear(1, 1)
    keeper = BestState(net)
    keeper.update(torch.tensor(float("nan")))
    assert keeper.best == torch.inf
    assert keeper.stale == 1


def test_early_stopping_returns_the_best_state():
    net = nn.Linear(1, 1, bias=False)
    scores = iter([3.0, 1.0, 2.0, 2.5, 9.0])
    seen = []

    def validate():
        seen.append(net.weight.item())
        return torch.tensor(next(scores))

    stop = {"validate": validate, "every": 10, "patience": 2}
    result = fit(net, lambda _: net.weight.sum(), range(100), Optimisation(lr=0.1), **stop)
    assert result.stopped_early
    assert result.steps == 30  # the start is scored too
    assert net.weight.item() == pytest.approx(seen[1])


def test_a_non_finite_loss_stops_with_the_best_state():
    net = nn.Linear(1, 1, bias=False)
    start = net.weight.item()
    with pytest.raises(DivergedError, match="by step 10"):
        fit(net, lambda i: net.weight.sum() * (float("nan") if i >= 5 else 1), range(20), every=10)
    assert net.weight.item() == start


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("cosine", 0.0), ("onecycle", 0.0)])
def test_schedules_end_where_they_should(schedule, last):
    """With one constant gradient AdamW moves by the learning rate: the last step shows it."""
    net, trail = nn.Linear(1, 1, bias=False), []
    loss = lambda _: (trail.append(net.weight.item()), net.weight.sum())[1]  # noqa: E731
    fit(net, loss, range(200), Optimisation(lr=0.01, schedule=schedule))
    assert (trail[-2] - trail[-1]) / 0.01 == pytest.approx(last, abs=0.02)


def averaged(loss, guard=False):
    """The weight after 60 steps of one constant gradient, each of length 0.01, and the weights before every step."""
    net, trail = nn.Linear(1, 1, bias=False), []
    watch = Guard(net, every=10) if guard else None
    fit(net, lambda i: (trail.append(net.weight.item()), net.weight.sum() * loss(i))[1], range(60),
        Optimisation(lr=0.01, average=0.9), guard=watch)  # fmt: skip
    return net.weight.item(), trail


def test_a_fit_ends_with_the_average_of_its_parameters():
    found, trail = averaged(lambda i: 1.0)
    mean, after = trail[0], [*trail[1:], trail[-1] - 0.01]
    for t, weight in enumerate(after, 1):
        decay = min(0.9, (1 + t) / (10 + t))
        mean = decay * mean + (1 - decay) * weight
    assert found == pytest.approx(mean, abs=1e-5)
    assert found > after[-1] + 0.05  # the last parameters themselves are another answer


def test_the_average_forgets_what_was_rolled_back():
    """Step 59 of 60 is bad: the average starts again at the good state and takes in one step from there."""
    found, trail = averaged(lambda i: float("nan") if i == 58 else 1.0, guard=True)
    good = trail[40]  # from before the kept state of step 50
    assert found == pytest.approx(good - (1 - 2 / 11) * 0.005, abs=1e-5)


def test_average_and_validation_exclude_each_other():
    with pytest.raises(ValueError, match="average: expected 0 where validate"):
        fit(nn.Linear(1, 1), len, [1], Optimisation(average=0.9), validate=lambda: torch.zeros(()))


@pytest.mark.parametrize("recipe", [Optimisation, MCMCRecipe, JEMRecipe, AmortizedRecipe, TiltRecipe])
@pytest.mark.parametrize(
    ("setting", "value"),
    [("lr", 0), ("lr", float("nan")), ("schedule", "linear"), ("clip", -1.0), ("weight_decay", -1), ("average", 1.0)],
)
def test_bad_optimisations_are_named_in_every_recipe(recipe, setting, value):
    with pytest.raises(ValueError, match=f"{setting}: expected"):
        recipe(**{setting: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "every: expected"),
        ({"patience": 0}, "patience: expected"),
        ({"loss": lambda _: torch.zeros(3)}, r"loss: expected a scalar tensor, got \(3,\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        fit(nn.Linear(1, 1), change.pop("loss", len), [1], **change)


def test_minibatches_cover_each_epoch_once(rng):
    batches = list(Minibatches(torch.arange(10), batch_size=5, epochs=3, generator=rng))
    for e in range(3):
        assert sorted(torch.cat([b for (b,) in batches[2 * e : 2 * e + 2]]).tolist()) == list(range(10))


def fitted_energy(seed, flip=False, **recipe):
    """Reference N(1, .8²) against the base N(0, 1): E* = -log q/p0 is a parabola."""
    rng = torch.Generator().manual_seed(seed)
    energy = EnergyNet(1, members=2, generator=rng)
    codes = Codes.split(torch.full((4000, 1), -1.0 if flip else 1.0), torch.full((4000, 1), 0.8), 2, rng)
    fit_energy(energy, codes, TiltRecipe(steps=300, **recipe), generator=rng)
    return energy, held_out_gain(energy, codes, generator=rng)


def error_of(energy):
    z = torch.linspace(-1, 2, 61).unsqueeze(1)
    exact = 0.5 * ((z - 1) / 0.8).square() - 0.5 * z.square()
    with torch.no_grad():
        gap = energy(z) - exact.squeeze(1)
    return (gap - gap.mean()).abs().max().item()


def test_likelihood_fit_recovers_the_log_ratio():
    energy, found = fitted_energy(0)
    assert error_of(energy) < 0.2
    # KL(N(1, .8²) || N(0, 1)) = (0.64 + 1 - 1)/2 - log 0.8
    assert found == pytest.approx(0.32 + 0.22314, abs=0.05)


@pytest.mark.parametrize(
    "recipe",
    [
        {"objective": "nce"},
        {"objective": "contrastive", "chains": 256},
        {"objective": Contrastive(negatives_from="prior", chains=256, steps=20, step=0.2)},
        {"objective": "score"},
        {"objective": Amortized(draws=128)},
    ],
    ids=["nce", "persistent", "prior", "score", "amortized"],
)
def test_every_objective_recovers_the_log_ratio(recipe):
    energy, found = fitted_energy(0, **recipe)
    assert error_of(energy) < 0.35
    assert found == pytest.approx(0.32 + 0.22314, abs=0.05)
    if recipe["objective"] == "nce":
        # Equal weights of both sides leave the constant that makes log Z zero.
        z = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(1))
        assert log_partition(energy(z)).abs() < 0.05


def test_chains_of_each_member_follow_its_own_energy(rng):
    """Two members, E = ½(z ∓ 2)²: their tilted laws are N(±1, ½)."""
    centre = torch.tensor([2.0, -2.0])[:, None]
    shape, like = (2, 1), torch.zeros(0)

    def members(z):
        return 0.5 * (z.squeeze(-1) - centre).square()

    def mean_of(energies, **how):
        chains = Negatives(energies, lambda u: u, shape, chains=4000, step=0.1, like=like, generator=rng, **how)
        return chains.draw().mean((1, 2))

    # ULA's mean is exact in its limit; 40 steps leave 2·0.8^40 of the start.
    assert (mean_of(members, start="prior", steps=40) - torch.tensor([1.0, -1.0])).abs().max() < 4.9 * 0.8 / 4000**0.5
    # Energies taken for each other, and ascent instead of descent, are caught.
    for fault in (lambda z: 0.5 * (z.squeeze(-1) + centre).square(), lambda z: -members(z)):
        assert (mean_of(fault, start="prior", steps=40) - torch.tensor([1.0, -1.0])).abs().max() > 0.1


@pytest.mark.parametrize("objective", ["likelihood", "score"])
def test_a_flipped_reference_is_caught(objective):
    assert error_of(fitted_energy(0, flip=True, objective=objective)[0]) > 0.2


@pytest.mark.parametrize(("objective", "drawn"), [("score", None), ("contrastive", torch.zeros(9, 1))])
def test_an_objective_that_does_not_suit_the_codes_is_named(objective, drawn, rng):
    codes = Codes.split(torch.zeros(9, 1), torch.zeros(9, 1), 2, rng, drawn=drawn)
    with pytest.raises(ValueError, match="objective: expected"):
        fit_energy(EnergyNet(1), codes, TiltRecipe(objective=objective, steps=1), generator=rng)


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (1.5, False)])
def test_score_matching_is_least_at_the_mixtures_own_score(factor, right, rng):
    """Two reference images, N(±1, s²): the loss is stationary where the energy is −log q_ref/p0, and nowhere else."""
    mean = torch.tensor([[1.0], [-1.0]]).repeat(20_000, 1)
    scale, by = torch.full_like(mean, 0.6), torch.tensor(factor, requires_grad=True)

    def energy(z):
        return -by * Normal(mean[:2, 0], 0.6).log_prob(z).logsumexp(-1) - 0.5 * z.square().sum(-1)

    loss = posterior_score_loss(energy, mean, scale, generator=rng)
    (slope,) = torch.autograd.grad(loss, by)
    # The slope's terms have a standard deviation below 2.
    assert (slope.abs() < 4.9 * 2 / len(mean) ** 0.5) == right


def test_members_never_train_on_their_own_fold(rng, monkeypatch):
    """Fold 1 holds outliers only: member 1 alone must not know them."""
    # No held-out score can gain here: the start would be restored.
    monkeypatch.setattr(BestState, "restore", lambda self: None)
    mean = torch.zeros(100, 1)
    codes = Codes(mean, torch.full((100, 1), 0.3), torch.arange(100) % 2)
    mean[codes.fold == 1] = 3.0
    energy = EnergyNet(1, members=2, generator=rng)
    fit_energy(energy, codes, TiltRecipe(steps=60, patience=None, every=60), generator=rng)
    with torch.no_grad():
        at = energy.members(torch.tensor([[0.0], [3.0]]))
    assert at[0, 1] < at[0, 0]  # member 0 saw the outliers
    assert at[1, 0] < at[1, 1]  # member 1 saw the rest


@pytest.mark.parametrize(
    ("machine", "native", "amx", "pays"),
    [("x86_64", False, False, False), ("x86_64", False, True, True), ("AMD64", True, False, True)],
)
def test_bfloat16_pays_where_it_is_not_imitated(machine, native, amx, pays, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert bf16_pays(torch.device("cpu")) is pays


def test_the_same_seed_gives_the_same_vae():
    images = torch.randint(0, 255, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def weights(seed):
        torch.manual_seed(7)
        vae = VAE((1, 8, 8), 2, width=16)
        fit_vae(vae, images, epochs=2, batch_size=16, generator=torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in vae.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("objective", "adversarial"),
        ("gradient_penalty", -1),
        ("steps", 0),
        ("batch", 1.5),
        ("chains", 0),
        ("chain_steps", 0),
        ("sampler_draws", 0),
    ],
)
def test_bad_recipes_are_named(argument, value):
    with pytest.raises(ValueError, match=f"{argument}: expected"):
        TiltRecipe(**{argument: value})


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        (Jensen, "penalty", 0),
        (Contrastive, "negatives_from", "data"),
        (Contrastive, "step", 0),
        (Contrastive, "steps", 0),
        (Amortized, "moves", 0),
        (Amortized, "lr", 0),
        (Amortized, "noise", 0),
    ],
)
def test_bad_objectives_are_named(kind, argument, value):
    with pytest.raises(ValueError, match=f"{argument}: expected"):
        kind(**{argument: value})
