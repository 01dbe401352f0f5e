"""Models that are not ours, tilted to a reference: closed forms on a Gaussian latent, a pythae model, bad input."""

from __future__ import annotations

import contextlib
import doctest
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.vae import VAE
from latentebm.sampling import SNIS, Langevin
from latentebm.tilting.any_model import tilt_generator
from latentebm.tilting.fit_tilt import TiltRecipe
from latentebm.tilting.objectives import Jensen
from latentebm.tilting.supports import SupportWarning

QUICK = TiltRecipe(steps=150, batch=128, base_batch=512)
SHIFT = 1.0


def shifted(encoder=None) -> tuple[WrappedModel, torch.Tensor]:
    """A model that widens N(0, I) threefold, and a reference shifted along the first coordinate."""
    model = WrappedModel(lambda z: 3 * z, 2, encoder=encoder)
    reference = 3 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
    return model, reference + torch.tensor([3 * SHIFT, 0.0])


ROUTES = {
    "features": (None, lambda x: x[:, :1]),
    "data": (None, None),
    "encoder": (lambda x: x / 3, None),
}


def check_shift(tilt, rng) -> None:
    """The exact energy is −s z₁ + s²/2: tilted draws are N(s, 1) along z₁ and N(0, 1) along z₂."""
    draws = SNIS(pool=50_000).draw(tilt, 5000, generator=rng)
    assert draws.latent.mean(0).tolist() == pytest.approx([SHIFT, 0.0], abs=0.15)
    low, high = tilt.energy(torch.tensor([[-0.5, 0.0], [1.5, 0.0]])).tolist()
    assert low - high == pytest.approx(2 * SHIFT, abs=0.6)
    # The gain is the KL divergence s²/2, and log Z of the normalised energy 0.
    z = torch.randn(5000, 2, generator=rng) + torch.tensor([SHIFT, 0.0])
    gain = -tilt.energy(z).mean() - draws.diagnostics["log_z"]
    assert float(gain) == pytest.approx(SHIFT**2 / 2, abs=0.12)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_finds_the_shift(route, rng):
    encoder, features = ROUTES[route]
    model, reference = shifted(encoder)
    check_shift(tilt_generator(model, reference, features=features, recipe=QUICK, folds=2, generator=rng), rng)


@pytest.mark.parametrize("fault", ["features of the other coordinate", "an encoder on another scale"])
def test_faults_are_caught(fault, rng):
    model, reference = shifted((lambda x: x) if "encoder" in fault else None)
    features = (lambda x: x[:, 1:]) if "features" in fault else None
    said = pytest.warns(SupportWarning, match="unlike any") if "encoder" in fault else contextlib.nullcontext()
    with said:
        tilt = tilt_generator(model, reference, features=features, recipe=QUICK, folds=2, generator=rng)
    with pytest.raises(AssertionError):
        check_shift(tilt, rng)


def test_langevin_follows_features_through_the_decoder(rng):
    model, reference = shifted()
    tilt = tilt_generator(model, reference, features=lambda x: x, recipe=QUICK, folds=2, generator=rng)
    draws = Langevin(n_steps=60).draw(tilt, 1000, generator=rng)
    assert draws.latent.mean(0).tolist() == pytest.approx([SHIFT, 0.0], abs=0.25)


def test_our_vae_gives_its_posteriors(rng):
    vae = VAE((1, 4, 4), 2, width=16).requires_grad_(False)
    tilt = tilt_generator(vae, torch.rand(20, 1, 4, 4), recipe=QUICK, folds=2, generator=rng)
    assert tilt.net.n_members == 2


def test_other_supports_are_called_out(rng):
    """Real data with noise that the model never makes: an energy of the data sees the noise, and collapses."""
    flat = WrappedModel(lambda z: torch.cat([z, torch.zeros(len(z), 3)], 1), 2)
    reference = torch.randn(500, 5, generator=rng) * 4
    steep = TiltRecipe(objective=Jensen(penalty=1e-3), steps=100, batch=128, base_batch=512)
    with pytest.warns(SupportWarning, match="pass features"):
        tilt_generator(flat, reference, recipe=steep, folds=2, generator=rng)


@pytest.mark.parametrize("encoder", [None, lambda x: x / 3])
@pytest.mark.parametrize("shift", [10, 100])
def test_supports_far_apart_are_called_out(shift, encoder, rng):
    """The bounded energy is the same for all draws: even weights, and no tilt."""
    model, reference = shifted(encoder)
    with pytest.warns(SupportWarning, match="got 100% of it unlike any"):
        tilt_generator(model, reference + 3 * shift, recipe=QUICK, folds=2, generator=rng)


def test_data_may_be_one_number_an_item(rng):
    model = WrappedModel(lambda z: z[:, 0], 2)
    tilt = tilt_generator(model, 1 + torch.randn(200, generator=rng), recipe=QUICK, folds=2, generator=rng)
    low, high = tilt.energy(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert high < low


def test_a_pythae_vae_is_tilted(rng):
    """The library's own objects where it is installed: `decoder(z)` gives a dictionary, `encoder(x)` another."""
    models = pytest.importorskip("pythae.models", reason="pip install pythae")
    torch.manual_seed(0)
    vae = models.VAE(models.VAEConfig(input_dim=(1, 4, 4), latent_dim=2)).eval().requires_grad_(False)
    model = WrappedModel(vae.decoder, 2, key="reconstruction", encoder=lambda x: vae.encoder(x)["embedding"])
    assert model.data_shape == (1, 4, 4)
    tilt = tilt_generator(model, torch.rand(50, 1, 4, 4), recipe=QUICK, folds=2, generator=rng)
    assert SNIS(pool=1000).draw(tilt, 5, generator=rng).x.shape == (5, 1, 4, 4)


def test_the_page_runs():
    page = Path(__file__).parents[1] / "docs" / "your-generator.md"
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), 0)
    assert len(test.examples) > 10
    assert doctest.DocTestRunner().run(test).failed == 0


def bad(model=None, reference=None, **options):
    default = shifted()
    rng = torch.Generator().manual_seed(0)
    reference = default[1] if reference is None else reference
    tilt_generator(model or default[0], reference, **{"recipe": QUICK, "generator": rng} | options)


class Sizeless(nn.Module):
    def decode(self, z):
        return z


class Decoding:
    latent_dim = 2

    def __init__(self, decode):
        self.decode = decode


class Encoding(Sizeless):
    latent_dim = 2

    def encode(self, x):
        return x, x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": torch.zeros(9, 3)}, r"reference: expected items of the decoded shape \(2,\), got \(3,\)"),
        ({"reference": torch.zeros(1, 2)}, "reference: expected at least 2 items"),
        ({"reference": torch.zeros(9, 2, dtype=torch.uint8)}, "reference: expected a float tensor"),
        (
            {"reference": shifted()[1] / torch.tensor([1.0, 0.0]), "model": shifted(lambda x: x)[0]},
            "reference: expected fin",
        ),
        ({"model": Encoding()}, r"encode: expected codes of shape \(2000, 2\), got tuple"),
        ({"model": Sizeless()}, "got Sizeless without latent_dim"),
        ({"model": Decoding(lambda z: {"x": z})}, "model.decode: expected a tensor of 2 items for 2 codes, got dict"),
        ({"model": Decoding(lambda z: z.repeat(2, 1))}, r"model.decode: expected a tensor of 2 items .*, got \(4, 2\)"),
        ({"generator": None}, "generator: expected a torch.Generator, got NoneType"),
        ({"features": "logits"}, "features: expected one of .*, got 'logits'"),
        ({"features": lambda x: x, "pool": 1}, "pool: expected a whole number of at least 2"),
        ({"features": lambda x: x.mean()}, r"features: expected shape \(32, F\), got \(\)"),
        ({"features": lambda x: x[:1]}, r"features: expected shape \(32, F\), got \(1, 2\)"),
        ({"features": lambda x: x / 0}, "features: expected finite numbers"),
        ({"features": lambda x: x[:, : 1 + (len(x) == 2000)]}, "features: expected the same number of features for"),
        ({"model": shifted(encoder=lambda x: x[:100])[0]}, r"encoder: expected codes of shape \(2000, 2\)"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        bad(**options)
