"""The learned prior: its density, draws and gradient, its fit, and the tilts, objectives and kernels above it."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from latentebm import Debiaser, tilt_generator
from latentebm.evaluation import baselines
from latentebm.gradients import differentiate
from latentebm.models.base.mixture_prior import MixturePrior
from latentebm.models.composition import ProductTilt
from latentebm.models.data_energies import DataEnergy
from latentebm.models.data_tilts import DataTilt, ElboTilt
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt
from latentebm.models.vae import VAE
from latentebm.sampling import MALA, PCN, SNIS, Auto, Langevin
from latentebm.sampling.mcmc.kernels import RandomWalk
from latentebm.tilting.fit_tilt import TiltRecipe
from latentebm.tilting.objectives import Contrastive, Likelihood, Score
from latentebm.tilting.spaces import DataSpace, LatentSpace
from latentebm.training.fit_prior import fit_prior
from latentebm.training.fit_vae import fit_vae
from latentebm.training.mixed_in import MixedIn

SHARE, MEAN = torch.tensor([0.3, 0.7]), torch.tensor([[-2.0, 0.5], [1.5, -1.0]])
FACTOR = torch.tensor([[[0.5, 0.0], [0.3, 0.4]], [[0.8, 0.0], [-0.2, 0.6]]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_normals() -> MixturePrior:
    prior = MixturePrior(2, 2)
    prior.load_state_dict({"share": SHARE, "mean": MEAN, "factor": FACTOR})
    return prior


def torch_form() -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(SHARE), MultivariateNormal(MEAN, scale_tril=FACTOR))


def known_vae(**settings: Any) -> VAE:
    vae = VAE((1, 4, 4), 2, width=8, **settings).requires_grad_(False).eval()
    vae.set_prior(two_normals())
    return vae


def test_density_and_gradient_are_those_of_torchs_mixture() -> None:
    z = 3 * torch.randn(500, 2, generator=rng())
    value, grad = two_normals().value_and_grad(z)
    wanted, slope = differentiate(torch_form().log_prob, z)
    torch.testing.assert_close(two_normals().log_prob(z), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-3)


def test_draws_are_of_the_mixture() -> None:
    z = two_normals().placed(torch.randn(40_000, 2, generator=rng(1)), rng(2))
    for axis in range(2):
        scale = FACTOR[:, axis].norm(dim=1)

        def distribution(x: np.ndarray, axis: int = axis, scale: torch.Tensor = scale) -> np.ndarray:
            parts = [stats.norm.cdf(x, float(m), float(s)) for m, s in zip(MEAN[:, axis], scale, strict=True)]
            return np.average(parts, 0, weights=SHARE.numpy())

        assert stats.kstest(z[:, axis].numpy(), distribution).pvalue > 1e-6
    second = z[z[:, 0] > 0]  # one component's draws, almost all
    found = float(torch.corrcoef(second.T)[0, 1])
    assert found == pytest.approx(-0.16 / math.sqrt(0.64 * 0.40), abs=0.03)


def test_an_unfitted_prior_is_standard_normal() -> None:
    z = torch.randn(9, 3, generator=rng())
    wanted = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
    torch.testing.assert_close(MixturePrior(3, 4).log_prob(z), wanted)


def test_fit_finds_the_codes_of_an_encoder_that_is_known() -> None:
    class Known(VAE):
        def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            code = 8 * x.flatten(1)[:, :2] - 4
            return code, torch.full_like(code, 1e-3)

    vae = Known((1, 1, 2), 2, width=8)
    codes = two_normals().placed(torch.randn(4000, 2, generator=rng()), rng(3))
    images = ((codes + 4) / 8 * 255).clamp(0, 255).round().byte().reshape(-1, 1, 1, 2)
    prior = fit_prior(vae, images, components=2, generator=rng())
    order = prior.mean[:, 0].argsort()
    torch.testing.assert_close(prior.share[order], SHARE, rtol=0, atol=0.04)
    torch.testing.assert_close(prior.mean[order], MEAN, rtol=0, atol=0.08)
    covariance = (prior.factor @ prior.factor.mT)[order]
    torch.testing.assert_close(covariance, FACTOR @ FACTOR.mT + 0.01 * torch.eye(2), rtol=0, atol=0.06)


def images_of(value: int, n: int) -> torch.Tensor:
    return torch.full((n, 1, 4, 4), value, dtype=torch.uint8)


class Bright(VAE):
    """An encoder whose code is the image's brightness."""

    def moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = x.flatten(1).mean(1, keepdim=True).expand(-1, 2)
        return code, torch.full_like(code, 1e-3)


def test_mixed_images_and_weights_count_as_in_training() -> None:
    dark, bright = images_of(0, 800), images_of(255, 800)
    vae = Bright((1, 4, 4), 2, width=8)
    mixed = fit_prior(vae, dark, components=1, mixed=MixedIn(images=bright[:5], share=0.25), generator=rng())
    assert float(mixed.mean[0, 0]) == pytest.approx(0.25, abs=0.01)
    weights = torch.cat([torch.ones(800), 3 * torch.ones(800)])
    weighted = fit_prior(vae, torch.cat([dark, bright]), components=1, weights=weights, generator=rng())
    assert float(weighted.mean[0, 0]) == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize(("images", "wanted"), [(10, 1), (199, 1), (256, 2), (5000, 3)])
def test_small_sets_get_fewer_components(images: int, wanted: int) -> None:
    x = (255 * torch.rand(images, 1, 4, 4, generator=rng())).byte()
    vae = VAE((1, 4, 4), 2, width=8)
    assert len(fit_prior(vae, x, components=3, generator=rng()).share) == wanted == vae.config["components"]


def test_every_fit_of_a_vae_says_its_prior() -> None:
    vae, x = VAE((1, 4, 4), 2, width=8), images_of(9, 64)
    fit_vae(vae, x, epochs=1, components=2, generator=rng())
    assert vae.prior is not None
    fit_vae(vae, x, epochs=1, generator=rng())
    assert vae.prior is None
    assert vae.config["components"] == 0


def test_baselines_have_the_prior_and_critic_of_ours_but_for_the_conditional_oracle(monkeypatch: Any) -> None:
    asked: list[tuple[int, float, float]] = []

    def fit(vae: VAE, images: torch.Tensor, **settings: Any) -> Any:
        asked.append((settings["components"], settings["kl_weight"], settings["pull"]))
        return fit_vae(vae, images, **settings)

    monkeypatch.setattr(baselines, "fit_vae", fit)
    x = (255 * torch.rand(40, 1, 4, 4, generator=rng())).byte()
    for prior in (two_normals(), None):
        vae = VAE((1, 4, 4), 2, width=8)
        vae.set_prior(prior)
        more: dict[str, Any] = {"labels": torch.arange(40) % 2, "target": [0.5, 0.5], "kl_weight": 0.5, "pull": 0.2}
        task = baselines.Task(vae=vae, biased=x, reference=x[:9], steps=2, **more)
        for method in (baselines.oversampled, baselines.conditional):
            method(task)
    assert asked == [(2, 0.5, 0.2), (0, 1.5, 0), (0, 0.5, 0.2), (0, 0.5, 0)]


def test_tilts_have_the_prior_for_their_base() -> None:
    vae, u = known_vae(likelihood="gaussian"), torch.randn(50, 18, generator=rng())
    z, noise = u[:, :2], torch.distributions.Normal(0, 1).log_prob(u[:, 2:]).sum(1)
    energy = EnergyNet(2, members=2, generator=rng())
    latent, data = LatentTilt(vae, energy), DataTilt(vae, DataEnergy((1, 4, 4), generator=rng()), noise=True)
    torch.testing.assert_close(latent.log_base(z), torch_form().log_prob(z), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(data.log_base(u), torch_form().log_prob(z) + noise, rtol=1e-4, atol=1e-3)
    drawn = data.sample_base(20_000, generator=rng(4))
    assert float((drawn[:, 0] > 0).float().mean()) == pytest.approx(0.68, abs=0.02)
    assert drawn[:, 2:].std() == pytest.approx(1, abs=0.01)
    both = ProductTilt(latent, data)
    assert both.log_base(u) == pytest.approx(data.log_base(u))


def test_a_tilt_of_another_prior_cannot_be_combined() -> None:
    vae = known_vae(likelihood="gaussian")
    latent, data = LatentTilt(vae, EnergyNet(2)), DataTilt(vae, DataEnergy((1, 4, 4)), noise=True)

    class Plain(LatentTilt):
        def log_base(self, u: torch.Tensor) -> torch.Tensor:
            return super().log_base(u) + 1

    with pytest.raises(ValueError, match="tilt: expected one base distribution, got two different ones"):
        ProductTilt(Plain(vae, latent.net), data)


def test_gradients_of_a_tilt_are_those_of_its_potential() -> None:
    energy = EnergyNet(2, members=3, generator=rng())
    for weight in energy.weights:
        nn.init.normal_(weight, generator=rng(5))
    tilt, z = LatentTilt(known_vae(), energy), torch.randn(40, 2, generator=rng())
    value, grad = tilt.value_and_grad(z)
    wanted, slope = differentiate(tilt.potential, z)
    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad, slope, rtol=1e-3, atol=1e-3)


# The normals lie apart: chains have the tilt's shares of them from their weighted starts.
@pytest.mark.parametrize("sampler", [SNIS(pool=40_000), Langevin(kernel=MALA(0.3), n_steps=20, starts=10)])
def test_samplers_draw_the_tilt_of_the_prior(sampler: Any) -> None:
    class Slope(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return -0.5 * z[:, 0]

    n = 4000
    draws = sampler.draw(LatentTilt(known_vae(), Slope()), n, generator=rng(6))
    # Each component moves by S b and gains exp(b'm + b'Sb/2): the tilt is a mixture again.
    b, spread = torch.tensor([0.5, 0.0]), FACTOR @ FACTOR.mT
    share = (SHARE.log() + MEAN @ b + 0.5 * (spread @ b) @ b).softmax(0)
    mean = MEAN + spread @ b
    wanted = share @ mean[:, 0]
    variance = share @ (spread[:, 0, 0] + mean[:, 0].square()) - wanted**2
    near = (
        4.9 * float(variance / (0.5 * n)) ** 0.5
    )  # half of the draws count: some are the same, or from the same start
    assert float(draws.latent[:, 0].mean()) == pytest.approx(float(wanted), abs=near)


def test_elbo_has_the_priors_kl() -> None:
    vae = known_vae(likelihood="gaussian")
    plain = copy.deepcopy(vae)
    plain.set_prior(MixturePrior(2, 1))  # N(0, I) by another road
    exact = copy.deepcopy(vae)
    exact.set_prior(None)
    x = torch.rand(5, 16, generator=rng())
    tilts = [
        ElboTilt(DataTilt(v, DataEnergy((1, 4, 4)), noise=True), draws=2000, generator=rng()) for v in (plain, exact)
    ]
    one, two = (tilt.log_base(x) for tilt in tilts)
    torch.testing.assert_close(one, two, rtol=0, atol=0.1)


def test_objectives_that_need_a_normal_prior_refuse_another() -> None:
    vae, x = known_vae(), (255 * torch.rand(20, 1, 4, 4, generator=rng())).byte()
    codes = LatentSpace().codes(vae, x, rng())
    tilt = DataTilt(vae, DataEnergy((1, 4, 4)))
    pictures = DataSpace().sides(tilt, x, codes, rng(), decoded=40)
    for objective in (Contrastive(), Score()):
        for sides in (codes, pictures) if isinstance(objective, Contrastive) else (codes,):
            with pytest.raises(ValueError, match="objective: expected one that takes the base by its draws alone"):
                objective.check(sides)
    Likelihood().check(codes)


def test_a_fit_in_python_takes_the_prior_for_its_base() -> None:
    """Reference codes drawn from the prior itself leave nothing to tilt, where N(0, I) as the base would."""
    vae = known_vae(likelihood="gaussian")
    codes = vae.prior.placed(torch.randn(2000, 2, generator=rng()), rng(1)) if vae.prior else torch.zeros(0)
    vae.posterior = lambda x: Independent(Normal(x.flatten(1)[:, :2], 1e-3), 1)  # type: ignore[method-assign]
    reference = torch.cat([codes, torch.zeros(2000, 14)], 1).reshape(-1, 1, 4, 4)
    tilt = tilt_generator(vae, reference, recipe=TiltRecipe(steps=100), folds=2, generator=rng())
    weights = SNIS(pool=20_000).draw(tilt, 5, generator=rng()).diagnostics
    assert weights["ess"] > 0.9


def test_settings_choose_the_prior() -> None:
    x = (255 * torch.rand(1100, 1, 4, 4, generator=rng())).byte().numpy()
    small: dict[str, Any] = {"width": 8, "epochs": 1, "folds": 2, "tilt_steps": 5, "pool": 1000, "langevin_steps": 2}

    def found(**settings: Any) -> int:
        return Debiaser(**small, **settings).fit(x, x[:30]).vae_.config["components"]

    assert found() == found(latent_dim=4) == found(latent_dim=4, objective="jensen") == 10
    assert found(objective="jensen") == found(space="data") == found(gradient_penalty=0.1) == found(clusters=0) == 0
    assert found(latent_dim=4, prior="normal") == 0
    assert found(prior="mixture") == 10
    assert found(latent_dim=4, objective="contrastive") == 0
    with pytest.raises(ValueError, match="prior: expected normal with objective=score, got 'mixture'; pass objective"):
        found(objective="score", prior="mixture")


def test_saved_models_keep_their_prior(tmp_path: Any) -> None:
    x = (255 * torch.rand(1100, 1, 4, 4, generator=rng())).byte().numpy()
    small: dict[str, Any] = {"width": 8, "epochs": 1, "folds": 2, "tilt_steps": 5, "pool": 1000}
    model = Debiaser(latent_dim=4, **small).fit(x, x[:30])
    again = Debiaser.load(model.save(tmp_path / "model"))
    assert again.vae_.prior is not None
    assert torch.equal(again.sample(20).x, model.sample(20).x)
    assert torch.equal(again.sample_prior(20).x, model.sample_prior(20).x)


def test_kernels_of_a_normal_base_are_not_taken() -> None:
    tilt = LatentTilt(known_vae(), EnergyNet(2))
    with pytest.raises(ValueError, match="log_base: expected a standard normal one for PCN, got another density"):
        Langevin(kernel=PCN(0.3), n_steps=2).draw(tilt, 5, generator=rng())

    class Hard(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return 9.0 * (z[:, 0] > -1).float()

    kernel = Auto()._kernel(LatentTilt(known_vae(), Hard()), rng())
    assert isinstance(kernel, RandomWalk)
