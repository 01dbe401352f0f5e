"""The tilt that gives a learned prior's normals other shares: its density, gradient, fit, folds and use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from latentebm import Debiaser
from latentebm.gradients import differentiate
from latentebm.models.base.mixture_prior import MixturePrior
from latentebm.models.energies import EnergyNet, Ensemble
from latentebm.models.mixture_energy import MixtureEnergy
from latentebm.models.tilts import LatentTilt
from latentebm.models.vae import VAE
from latentebm.sampling import MALA, SNIS, Langevin
from latentebm.tilting.clusters.fit_shares import fit_shares
from latentebm.tilting.held_out import held_out_gain
from latentebm.tilting.sides import Codes
from latentebm.training.fit_prior import fit_prior
from latentebm.training.mixed_in import MixedIn
from latentebm.workflow.judge import _kind

SHARE, OTHER = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
MEAN = torch.tensor([[-1.0, 0.5], [1.0, -1.0], [0.5, 1.5]])
FACTOR = torch.tensor([[[0.5, 0.0], [0.3, 0.4]], [[0.8, 0.0], [-0.2, 0.6]], [[0.4, 0.0], [0.1, 0.9]]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior(share: torch.Tensor = SHARE) -> MixturePrior:
    found = MixturePrior(2, 3)
    found.load_state_dict({"share": share, "mean": MEAN, "factor": FACTOR})
    return found


def energy(members: int = 1) -> MixtureEnergy:
    """The tilt from SHARE to OTHER, and further members that tilt less."""
    found = MixtureEnergy(2, 3, members=members)
    found.mixture.load_state_dict(prior().state_dict())
    strength = torch.arange(members, 0, -1).unsqueeze(1) / members
    found.log_ratio.data.copy_(strength * (OTHER / SHARE).log())
    return found


def codes(n: int, members: int = 2, seed: int = 1) -> Codes:
    """Codes of OTHER over a prior of SHARE, overlapping."""
    mean = prior(OTHER).placed(torch.randn(n, 2, generator=rng(seed)), rng(seed + 1))
    return Codes.split(mean, torch.full_like(mean, 1e-3), members, rng(), prior=prior())


def test_the_tilt_is_the_mixture_of_the_other_shares() -> None:
    z = 2 * torch.randn(300, 2, generator=rng())
    wanted = MixtureSameFamily(Categorical(OTHER), MultivariateNormal(MEAN, scale_tril=FACTOR)).log_prob(z)
    torch.testing.assert_close(prior().log_prob(z) - energy()(z), wanted, rtol=1e-4, atol=1e-4)


def test_value_and_gradient_are_those_of_autograd() -> None:
    z, net = 2 * torch.randn(300, 2, generator=rng()), energy(members=3)
    value, grad = net.value_and_grad(z)
    wanted, slope = differentiate(net, z)
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-4)
    each = net.members(z)
    torch.testing.assert_close(net.members(z.expand(3, -1, -1)), each, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.part(range(1, 3)).members(z), each[1:])


@pytest.mark.parametrize("sampler", [SNIS(pool=40_000), Langevin(kernel=MALA(0.3), n_steps=20, starts=10)])
def test_samplers_draw_the_other_shares(sampler: Any) -> None:
    vae, n = VAE((1, 4, 4), 2, width=8).requires_grad_(False).eval(), 4000
    vae.set_prior(prior())
    z = sampler.draw(LatentTilt(vae, energy()), n, generator=rng(3)).latent
    wanted, spread = OTHER @ MEAN, (FACTOR @ FACTOR.mT).diagonal(dim1=1, dim2=2)
    variance = OTHER @ (spread + MEAN.square()) - wanted.square()
    # Half of the draws count: some are the same, or from the same start.
    assert ((z.mean(0) - wanted).abs() < 4.9 * (variance / (0.5 * n)).sqrt()).all()


def test_the_fit_finds_the_shares_and_its_log_z_is_zero() -> None:
    n = 20_000
    found, log = fit_shares(codes(n), 2, None, generator=rng())
    own = (prior(OTHER).log_each(codes(n).mean).softmax(1) / OTHER).double()
    information = (own.T @ own) / n  # of the shares, with which likelihood determines them
    error = (torch.linalg.inv(information) - OTHER.outer(OTHER)).diagonal().sqrt() / (n / 2) ** 0.5
    assert ((SHARE * found.log_ratio.exp() - OTHER).abs() < 4.9 * error).all()
    base = prior().placed(torch.randn(200_000, 2, generator=rng(8)), rng(9))
    assert (-found.members(base)).exp().mean(1) == pytest.approx([1, 1], abs=0.01)
    assert log.steps == len(log.losses) == len(log.scores)
    assert log.losses == sorted(log.losses, reverse=True)


def test_gain_is_the_divergence_and_members_leave_their_folds_out() -> None:
    n = 20_000
    sides = codes(n)
    found, log = fit_shares(sides, 2, None, generator=rng())
    ratio = prior(OTHER).log_prob(sides.mean) - prior().log_prob(sides.mean)
    near = 4.9 * float(ratio.std()) / n**0.5
    assert held_out_gain(found, sides, generator=rng()) == pytest.approx(float(ratio.mean()), abs=2 * near)
    assert -float(log.best.mean()) == pytest.approx(float(ratio.mean()), abs=2 * near)
    # Fold 0 lies in the first normal alone, fold 1 in the third: each member knows only the other's.
    apart = Codes(MEAN[[0, 2]].repeat(500, 1), torch.zeros(1000, 2), torch.arange(1000) % 2, prior=prior())
    found, log = fit_shares(apart, 2, None, generator=rng())
    share = SHARE * found.log_ratio.exp()
    assert share[0, 2] > 0.9
    assert share[1, 0] > 0.9
    assert log.losses[-1] < 0 < float(log.best.min())


def test_weighted_images_stand_for_a_hundred_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # Apart, so that responsibilities are none but one: counts are all there is.
    line = MixturePrior(1, 3)
    share, mean = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[-20.0], [0.0], [20.0]])
    line.load_state_dict({"share": share, "mean": mean, "factor": torch.ones(3, 1, 1)})
    counts, n = torch.tensor([50, 30, 20]), 60
    biased = Codes(mean.repeat_interleave(counts, 0), torch.zeros(100, 1), torch.zeros(100, dtype=torch.long))
    biased = replace(biased, prior=line)
    weight = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.5]]).repeat_interleave(counts, 1)
    sides = Codes(mean[[2]].expand(n, 1), torch.zeros(n, 1), torch.arange(n) % 2, prior=line)
    found = share * fit_shares(sides, 2, None, weighted=(biased, weight), generator=rng())[0].log_ratio.exp()
    towards = (weight.reshape(2, 100) @ torch.eye(3).repeat_interleave(counts, 0) + 2 * share) / (
        weight.sum(1, keepdim=True) + 2
    )
    wanted = (n / 2 * torch.eye(3)[2] + 100 * towards) / (n / 2 + 100)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    # Of some of the biased images, the weights are still their own: none of the first member's is in the third normal.
    monkeypatch.setattr("latentebm.tilting.clusters.fit_shares.DRAWN", 50)
    found = share * fit_shares(sides, 2, None, weighted=(biased, weight), generator=rng())[0].log_ratio.exp()
    assert float(found[0, 2]) == pytest.approx(30 / 130, abs=0.01)


def test_ratios_stay_within_the_limit() -> None:
    apart = Codes(MEAN[[0]].repeat(2000, 1), torch.zeros(2000, 2), torch.arange(2000) % 2, prior=prior())
    assert fit_shares(apart, 2, 0.5, generator=rng())[0].log_ratio.abs().max() == 0.5


def test_a_normal_prior_is_refused() -> None:
    mean = torch.zeros(10, 2)
    with pytest.raises(ValueError, match="codes: expected a learned prior, got a standard normal one; fit the VAE"):
        fit_shares(Codes.split(mean, mean, 2, rng()), 2, None, generator=rng())


def test_images_that_are_mixed_in_or_weighted_get_no_normals_of_their_own() -> None:
    x, vae = (255 * torch.rand(1024, 1, 4, 4, generator=rng())).byte(), VAE((1, 4, 4), 2, width=8)
    found = [{}, {"mixed": MixedIn(images=x[:9], share=0.3)}, {"weights": torch.ones(1024)}]
    counts = [len(fit_prior(vae, x, components=160, generator=rng(), **more).share) for more in found]  # type: ignore[arg-type]
    assert counts == [10, 2, 2]


@pytest.mark.parametrize(("dim", "references", "weights"), [(4, 1000, None), (2, 90, (2, 1200))])
def test_references_of_a_learned_prior_are_counted_and_saved(
    dim: int, references: int, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (255 * torch.rand(1200, 1, 4, 4, generator=rng())).byte().numpy()
    small: dict[str, Any] = {"latent_dim": dim, "width": 8, "epochs": 1, "folds": 2, "tilt_steps": 5, "pool": 1000}
    passed: list[dict[str, Any]] = []
    noted = lambda *given, **more: passed.append(more) or fit_shares(*given, **more)  # noqa: E731
    monkeypatch.setattr("latentebm.tilting.method.fit_shares", noted)
    model = Debiaser(**small).fit(x, x[:references])
    assert isinstance(model.energy_, MixtureEnergy)
    assert [None if each["weighted"] is None else each["weighted"][1].shape for each in passed] == [weights]
    assert _kind(model.energy_) == f"shares of the prior's {model.vae_.config['components']} normals (2 fits)"
    again = Debiaser.load(model.save(tmp_path / "model"))
    assert torch.equal(again.sample(20).latent, model.sample(20).latent)
    others: list[dict[str, Any]] = [{"objective": "jensen"}, {"prior": "normal"}, {"gradient_penalty": 0.1}]
    for other in (*others, {"clusters": 3}):
        found = Debiaser(**{**small, **other}).fit(x, x[:references])
        assert isinstance(found.energy_, EnergyNet)
        assert (found.vae_.prior is None) == (dim == 2 or "prior" in other)
    own = Debiaser(**small, energy=lambda shape: nn.Linear(shape[0], 1)).fit(x, x[:references]).energy_
    assert isinstance(own, Ensemble)
