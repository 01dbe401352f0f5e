"""What a VAE learns from: the mixture of every batch, what is held out of it, and the rule of thin tails."""

from __future__ import annotations

import warnings

import pytest
import torch

from latentebm.data.augment import random_affine
from latentebm.debiaser import Debiaser
from latentebm.models.vae import VAE
from latentebm.progress import silent
from latentebm.settings.fields import DebiaserSettings
from latentebm.tilting.objectives import Likelihood
from latentebm.tilting.spaces import LatentSpace
from latentebm.training.dispersion import dispersion
from latentebm.training.mixed_in import MixedIn
from latentebm.vae_sources import Sources, changed_distance, choose_sources

from .conftest import bars


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_changes_are_small_and_their_own():
    x = torch.zeros(200, 1, 21, 21)
    x[:, :, 10, 10] = 1
    moved = random_affine(x, generator=rng())
    rows = (moved.sum((1, 3)) * torch.arange(21)).sum(1) / moved.sum((1, 2, 3)).clamp_min(1e-6)
    seen = moved.sum((1, 2, 3)) > 0.2
    # The centre only shifts: uniform within ±5 % of 21 pixels, so of standard deviation 2.1 / √12.
    assert rows[seen].std() == pytest.approx(2.1 / 12**0.5, rel=0.25)
    assert (rows[seen] - 10).abs().max() < 1.6
    assert torch.allclose(random_affine(x, strength=0, generator=rng()), x, atol=1e-5)


def test_every_batch_holds_its_share():
    mixed = MixedIn(images=torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), share=0.3)
    x, weight = mixed.into(torch.zeros(20, 1, 2, 2), torch.full((20,), 5.0), rng())
    assert int((x.amax((1, 2, 3)) == 1).sum()) == int((weight == 1).sum()) == 6


def test_half_of_every_batch_is_reference_unless_asked_otherwise():
    reference = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 1, 2, 2)
    found = choose_sources(DebiaserSettings(learn_from="both"), reference, reference)
    assert found.mixed.share == 0.5
    # No image is both learned from and held out.
    assert (len(found.mixed.images), len(found.held_out)) == (40, 10)
    assert not set(found.mixed.images[:, 0, 0, 0].tolist()) & set(found.held_out[:, 0, 0, 0].tolist())
    settings = DebiaserSettings(learn_from="both", reference_share="0.2", augment="none")
    asked = choose_sources(settings, reference, reference).mixed
    assert (asked.share, asked.augment) == (0.2, "none")


def moved_bars(count, spread):
    bar = torch.zeros(count, 1, 12, 12)
    bar[:, :, 2:10, 5:7] = 1
    return (255 * random_affine(bar, strength=spread, generator=rng(1))).byte()


@pytest.mark.parametrize(("spread", "chosen"), [(4.0, "affine"), (2.0, "slight"), (0.1, "none")])
def test_images_are_changed_as_much_as_they_vary_themselves(spread, chosen):
    images = moved_bars(1500, spread)
    found = choose_sources(DebiaserSettings(learn_from="both"), images, images[:50])
    assert found.augment == chosen, found.farther


def test_many_reference_images_are_shown_as_they_are():
    images, both = moved_bars(1500, 4.0), DebiaserSettings(learn_from="both")
    assert [choose_sources(both, images, images[:count]).augment for count in (599, 600)] == ["affine", "none"]


def test_how_far_a_change_leads_hardly_depends_on_the_number_of_images():
    few, many = (changed_distance(moved_bars(count, 2.5), "affine", generator=rng()) for count in (400, 4500))
    assert few - 1 == pytest.approx(many - 1, rel=0.25)


def test_only_thin_tails_bring_the_reference_in():
    data = bars(600, 0)
    by_class = [torch.nonzero(data.labels == k).flatten() for k in range(3)]
    reference = bars(60, 1).images
    assert choose_sources(DebiaserSettings(), data.images, reference).learn_from == "biased"
    thin = data.images[torch.cat([by_class[0], by_class[1][:20], by_class[2][:5]])]
    found = choose_sources(DebiaserSettings(), thin, reference)
    assert found.learn_from == "both"
    assert "the tail is thin" in found.why


def test_a_frozen_fit_is_the_same_with_and_without_a_reference():
    data, settings = bars(200, 0).images, {"width": 16, "epochs": 1, "learn_from": "biased"}
    one, two = (Debiaser(**settings).fit_vae(*sets).vae_.state_dict() for sets in ([data], [data, data[:20]]))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_reference_larger_than_the_biased_set_is_named():
    data, small = bars(40, 0).images, {"width": 8, "epochs": 1, "folds": 2, "tilt_steps": 2, "pool": 500}
    with pytest.warns(UserWarning, match="The reference has 22 images, the biased set 18: a generator"):
        Debiaser(**small).fit(data[:18], data[18:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Debiaser(**small).fit(data[:20], data[20:])


@pytest.mark.parametrize(("mean", "sd"), [(0.5, 0.3), (0.3, 0.15)])
def test_the_dispersion_of_grey_pixels_is_their_variance_beside_bernoullis(mean, sd):
    x = mean + sd * torch.randn(4000, 1, 5, 5, generator=rng()).clamp(-2.5, 2.5)
    x = (255 * x).round().byte()
    wanted = (x.double() / 255).var().item() / (mean * (1 - mean))
    assert dispersion(x, 1, generator=rng(1)) == pytest.approx(wanted, abs=0.03)
    assert dispersion(torch.zeros_like(x), 1, generator=rng()) == 1


@pytest.mark.parametrize("learn_from", ["biased", "both"])
def test_above_three_dimensions_the_kl_weight_is_the_pixels_dispersion(learn_from):
    data = bars(700, 0).images // 2 + (255 * torch.rand(700, 1, 8, 8, generator=rng())).byte() // 2

    def fitted(**more):
        model = Debiaser(**{"latent_dim": 4, "width": 16, "epochs": 1, "learn_from": learn_from, **more})
        return model.fit_vae(data, data[:20])

    def codes(**more):
        return fitted(**more).vae_.encode(data[:5].float() / 255)

    found = fitted().sources_.dispersion
    assert 0.05 < found < 0.5
    assert torch.equal(codes(), codes(kl_weight=found))
    assert not torch.equal(codes(), codes(kl_weight=1.5))
    assert torch.equal(codes(prior="normal"), codes(kl_weight=1.5 if learn_from == "biased" else found))
    assert fitted(likelihood="gaussian").sources_.dispersion is None
    assert fitted(latent_dim=3).sources_.dispersion is None


def test_positives_are_images_the_vae_has_not_seen():
    learned = bars(40, 0).images
    views = Sources(learn_from="both", augment="none").views(learned, rng())
    assert views.shape == (16, *learned.shape)
    assert not any(bool((view == image).all()) for view in views[:4, :10].flatten(0, 1) for image in learned)
    assert Sources().views(learned, rng()) is None
    many = learned.repeat(15, 1, 1, 1)
    assert torch.equal(Sources(learn_from="both", augment="none").views(many, rng()), many[None])


def test_a_tilt_to_views_starts_from_them_whatever_the_biased_images():
    images, vae = bars(40, 0).images, VAE((1, 8, 8), 2, width=16)
    views, z = Sources(learn_from="both", augment="affine").views(images, rng()), torch.randn(50, 2, generator=rng(1))

    def energies(biased, **settings):
        method = Debiaser(folds=2, tilt_steps=10, **settings).method()
        return method.fit(vae, images, biased, views=views, generator=rng(2), track=silent).energy(z)

    one = energies(bars(60, 1).images)
    assert torch.equal(one, energies(bars(60, 2).images[:50]))
    assert not torch.equal(one, energies(bars(60, 1).images, clusters=0))


def test_a_tilt_to_views_has_a_start_however_many_there_are():
    for space, views, counts in ((LatentSpace(), False, [20, 0]), (LatentSpace(), True, [20, 20])):
        assert [space.start_clusters(Likelihood(), n, views=views) for n in (999, 1000)] == counts
    assert LatentSpace(clusters=0).start_clusters(Likelihood(), 1000, views=True) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learn_from": "all"}, "learn_from: expected one of auto, biased, both"),
        ({"augment": "flip"}, "augment: expected one of auto, none"),
        ({"reference_share": "1"}, "reference_share: expected a number in"),
        ({"learn_from": "biased", "augment": "affine"}, "augment: expected auto with learn_from=biased"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Debiaser(**settings).check()


def test_a_fit_on_both_is_saved_with_its_reason(tmp_path):
    data = bars(120, 0).images
    settings = {"width": 16, "epochs": 2, "folds": 2, "tilt_steps": 10, "pool": 1000}
    model = Debiaser(learn_from="both", **settings).fit(data, data[:20])
    assert model.sources_.learn_from == "both"
    text = (model.save(tmp_path / "m") / "config.json").read_text(encoding="utf-8")
    assert '"reference_share"' in text
    loaded = Debiaser.load(tmp_path / "m")
    assert loaded.sample(3).x.shape == (3, 1, 8, 8)
    assert (loaded.sources_.augment, loaded.sources_.mixed) == (model.sources_.augment, None)
    with pytest.raises(ValueError, match="at least 10 images with learn_from=both, got 2"):
        Debiaser(learn_from="both", **settings).fit(data, data[:2])
