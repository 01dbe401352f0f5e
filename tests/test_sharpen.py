"""The critic that sharpens a VAE: which way it pulls and how far, what that does to images, when it is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from latentebm import Debiaser
from latentebm.models.vae import VAE
from latentebm.report.panel_table import remarks
from latentebm.settings.fields import DebiaserSettings
from latentebm.training import sharpen as sharpening
from latentebm.training.fit_vae import fit_vae
from latentebm.training.sharpen import Critic, sharpen
from latentebm.vae_sources import choose_sources


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def striped(n: int, seed: int) -> torch.Tensor:
    """Bright or dark images (N, 1, 8, 8), which a code can tell, of stripes whose phase it cannot."""
    level = torch.randint(2, (n, 1, 1, 1), generator=rng(seed)) * 80
    phase = torch.randint(2, (n, 1, 8, 1), generator=rng(seed + 1))
    stripes = 100 * ((torch.arange(8).view(1, 1, 1, 8) + phase) % 2)
    return (level + stripes).byte()


def contrast(x: torch.Tensor) -> float:
    """Mean absolute difference of neighbours in a row."""
    return float((x[..., 1:] - x[..., :-1]).abs().mean())


def sharpened(pull: float, epochs: int = 25) -> VAE:
    x = striped(600, 0)
    torch.manual_seed(0)
    vae = VAE((1, 8, 8), 1, width=64)
    fit_vae(vae, x, epochs=12, batch_size=50, lr=0.01, precision="fp32", generator=rng())
    if pull:
        sharpen(vae, x, pull=pull, epochs=epochs, batch_size=50, lr=3e-3, generator=rng(1))
    return vae


def test_what_no_code_tells_is_a_blur_until_a_critic_asks_for_it() -> None:
    x = striped(200, 5).float() / 255
    plain, sharp = (vae.decode(vae.encode(x)) for vae in (sharpened(0), sharpened(1.0)))
    assert contrast(plain) < 0.2 * contrast(x)
    assert contrast(sharp) > 0.5 * contrast(x)
    # The code still says what it said.
    bright = x.mean((1, 2, 3)) > x.mean()
    assert (sharp.mean((1, 2, 3))[bright].mean() - sharp.mean((1, 2, 3))[~bright].mean()) > 0.25


def test_the_critic_pulls_against_its_own_gradient_by_a_share_of_the_likelihoods() -> None:
    torch.manual_seed(0)
    vae, critic, x = VAE((1, 8, 8), 2, width=16), Critic((1, 8, 8)).eval(), torch.rand(5, 1, 8, 8, generator=rng())
    output = torch.randn(5, 1, 8, 8, generator=rng(1)).requires_grad_()
    nats = -vae.likelihood.log_prob(x, output)
    (own,) = torch.autograd.grad(nats.mean(), output, retain_graph=True)
    cross_entropy = F.softplus(critic(vae.likelihood.mean(output))).mean()
    (towards,) = torch.autograd.grad(cross_entropy, output)
    asked = F.softplus(critic(sharpening._pulled(vae, output, nats, 0.3))).mean()
    (found,) = torch.autograd.grad(asked, output)
    assert float(asked.detach()) == pytest.approx(float(cross_entropy.detach()))
    torch.testing.assert_close(found, -towards * (0.3 * own.norm() / towards.norm()))


def test_images_that_do_not_count_change_nothing() -> None:
    torch.manual_seed(0)
    vae, x, other = VAE((1, 8, 8), 2, width=16), striped(64, 0), striped(64, 7)
    weights, start, found = torch.arange(128) % 2, vae.state_dict(), []
    start = {name: value.clone() for name, value in start.items()}
    for beside in (other, 255 - other):
        vae.load_state_dict(start)
        both = torch.stack([beside, x], 1).flatten(0, 1)
        # Without a pull: the critic itself is shared by all images of a batch.
        sharpen(vae, both, pull=0.0, epochs=2, batch_size=128, weights=weights.float(), generator=rng())
        found.append(vae.encode(x.float() / 255))
    torch.testing.assert_close(*found)


def test_the_same_seed_is_the_same_run_and_the_critic_is_not_kept() -> None:
    one, two = (sharpened(0.5, epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert list(one) == list(VAE((1, 8, 8), 1, width=64).state_dict())


def grey(n: int) -> torch.Tensor:
    return (128 + 20 * torch.randn(n, 1, 6, 6, generator=rng())).byte()


@pytest.mark.parametrize(
    ("settings", "images", "count", "wanted"),
    [
        ({}, grey, 20, 0.5),
        ({}, lambda n: 255 * (grey(n) > 128).byte(), 20, 0.0),
        ({"learn_from": "biased"}, grey, 20, 0.0),
        ({"latent_dim": 3}, grey, 20, 0.0),
        ({"sharpen": 0}, grey, 20, 0.0),
        ({"sharpen": "0.2", "learn_from": "biased", "latent_dim": 2}, grey, 20, 0.2),
    ],
)
def test_thin_tails_of_grey_pixels_are_sharpened_unasked(
    settings: dict[str, Any], images: Any, count: int, wanted: float
) -> None:
    known = DebiaserSettings(**{"latent_dim": 4, "learn_from": "both", **settings})
    assert choose_sources(known, images(700), images(count)).training()["pull"] == wanted


def test_the_estimator_sharpens_as_asked_and_the_report_says_so(tmp_path: Any) -> None:
    x, small = striped(300, 0), {"latent_dim": 4, "width": 16, "epochs": 2, "learn_from": "both", "folds": 2}
    small |= {"tilt_steps": 10, "pool": 500, "device": "cpu"}
    plain, sharp, again = (Debiaser(**small, sharpen=s).fit_vae(x, x[:20]) for s in (0, 0.5, 0.5))
    code = [model.vae_.encode(x.float() / 255) for model in (plain, sharp, again)]
    assert torch.equal(code[1], code[2])
    assert not torch.equal(code[0], code[1])
    loaded = Debiaser.load(sharp.fit_tilt(x[:20]).save(tmp_path / "m"))
    assert (loaded.sharpen, loaded.sources_.pull) == (0.5, 0.5)
    said = [remarks({"generator": {"sources": model.sources_.as_dict()}}) for model in (sharp, plain)]
    assert said[0] == [*said[1], "A critic sharpened its images."]


@pytest.mark.parametrize("value", ["much", -1, 11, float("nan"), None])
def test_other_settings_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"sharpen: expected a number in \[0, 10\]"):
        Debiaser(sharpen=value).check()


def test_rows_and_labelled_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data_shape: expected images \(C, H, W\), got \(12,\)"):
        Critic((12,))
    x = striped(20, 0)
    with pytest.raises(ValueError, match="pull: expected 0 with labels"):
        fit_vae(VAE((1, 8, 8), 2, width=8), x, pull=0.5, labels=torch.zeros(20), generator=rng())
