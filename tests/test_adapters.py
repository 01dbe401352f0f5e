"""Adapters: each library's own draws, exactly; what draws noise of its own is refused."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from latentebm import (
    SNIS,
    Attribute,
    TableDebiaser,
    from_ctgan,
    from_diffusers,
    from_sdv,
    from_stylegan,
    from_zuko,
    tilt_attributes,
)
from latentebm.adapters.from_module import WrappedModel
from latentebm.tilting.any_model import tilt_generator
from latentebm.tilting.fit_tilt import TiltRecipe

diffusers = pytest.importorskip("diffusers", reason='pip install "latentebm[diffusion]"')
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers itself


def network(channels: int, sample_size: int | None = 8, **options) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return diffusers.UNet2DModel(sample_size, channels, channels, **sizes, **blocks, **options).eval()


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return network(1)


SCHEDULERS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
]


class Exact(nn.Module):
    """What a perfect network says where pixels are N(0, .2²) each: then noise z leads to the image .2 z."""

    config = SimpleNamespace(sample_size=8, in_channels=1)

    def __init__(self, scheduler) -> None:
        super().__init__()
        self.kept = getattr(scheduler, "alphas_cumprod", None)

    def forward(self, x, t):
        if self.kept is None:  # the velocity of flow matching, x_t = (1 − σ) x_0 + σ z
            s = (t / 1000).view(-1, 1, 1, 1)
            return SimpleNamespace(sample=x * (s - 0.04 * (1 - s)) / (0.04 * (1 - s) ** 2 + s**2))
        kept = self.kept[t.long()].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=x * (1 - kept).sqrt() / (0.04 * kept + 1 - kept))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_leads_to_the_image_that_the_equation_says(name, rng):
    options = {"clip_sample": False} if name == "DDIMScheduler" else {}
    schedule = getattr(diffusers, name)(**options)
    model = from_diffusers(Exact(schedule), schedule, steps=200, batch_size=2)
    z = torch.randn(3, 64, generator=rng)
    x = model.decode(z)
    assert x.shape == (3, 1, 8, 8)
    assert torch.allclose(x.flatten(1), 0.2 * z, rtol=0.06, atol=0.005)
    if name == "DDIMScheduler":
        assert torch.allclose(model.encode(x), z, rtol=0.06, atol=0.01)


def test_ddim_is_the_librarys_own_pipeline(unet):
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=50)
    made = from_diffusers(diffusers.DDIMPipeline(copy.deepcopy(unet), scheduler), steps=5)
    g = torch.Generator().manual_seed(3)
    z = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    pipeline = diffusers.DDIMPipeline(copy.deepcopy(unet), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(1, generator=g, num_inference_steps=5, output_type="np").images[0, :, :, 0]
    assert np.allclose(made.decode(z.flatten(1))[0, 0].clamp(-1, 1) / 2 + 0.5, image, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: diffusers.DDPMScheduler(), lambda: None, lambda: diffusers.LCMScheduler()])
def test_schedulers_with_noise_are_refused(make, unet):
    with pytest.raises(ValueError, match="scheduler: expected a deterministic one"):
        from_diffusers(unet, make(), steps=4)


def test_a_consistency_model_is_the_librarys_own_pipeline():
    pipeline = diffusers.ConsistencyModelPipeline(network(3), diffusers.CMStochasticIterativeScheduler())
    pipeline.set_progress_bar_config(disable=True)
    z = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    image = pipeline(1, num_inference_steps=1, latents=z.clone(), output_type="np").images[0]
    made = from_diffusers(pipeline, steps=1).decode(z.flatten(1))[0].permute(1, 2, 0)
    assert np.allclose(made.clamp(-1, 1) / 2 + 0.5, image, atol=1e-5)


class TextToImage:
    """What a Stable Diffusion pipeline holds: a network that reads text, a VAE, and `encode_prompt`."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
        blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
        text = {"cross_attention_dim": 4, "attention_head_dim": 2, "mid_block_type": None}
        self.unet = diffusers.UNet2DConditionModel(4, 4, 4, **sizes, **blocks, **text)
        self.vae = diffusers.AutoencoderKL(3, 3, block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
        self.scheduler = diffusers.EulerDiscreteScheduler()

    def encode_prompt(self, text, device, images, guided):
        codes = [torch.full((1, 2, 4), float(len(words))) for words in (text, "")]
        return (codes[0], codes[1] if guided else None, None)


def test_a_prompt_with_guidance_in_a_latent_space():
    pipe = TextToImage()
    z = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    made = {w: from_diffusers(pipe, steps=2, prompt="a cat", guidance_scale=w) for w in (0.0, 1.0, 3.0)}
    with torch.no_grad():
        schedule, x = copy.deepcopy(pipe.scheduler), z.view(2, 4, 4, 4)
        schedule.set_timesteps(2)
        x = x * schedule.init_noise_sigma
        for t in schedule.timesteps:  # classifier-free guidance, as its paper writes it
            given = schedule.scale_model_input(x, t)
            one, none = (pipe.unet(given, t, encoder_hidden_states=torch.full((2, 2, 4), v)).sample for v in (5.0, 0.0))
            x = schedule.step(none + 3 * (one - none), t, x).prev_sample
        wanted = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
        assert torch.allclose(made[3.0].decode(z), wanted, atol=1e-4)
        assert not torch.allclose(made[1.0].decode(z), wanted, atol=1e-2)
        untold = from_diffusers(pipe, steps=2, prompt="")
        assert torch.allclose(made[0.0].decode(z), untold.decode(z), atol=1e-4)


def test_several_prompts_are_a_part_of_the_code():
    pipe = TextToImage()
    model = from_diffusers(pipe, steps=2, prompt={"a cat": 0.25, "a horse": 0.75})
    alone = from_diffusers(pipe, steps=2, prompt="a horse")
    z = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    label = torch.special.ndtri(torch.tensor([[0.2], [0.3]]))
    with torch.no_grad():
        x = model.decode(torch.cat([z.expand(2, -1), label], 1))
        assert torch.allclose(x[1:], alone.decode(z), atol=1e-4)
    assert not torch.allclose(x[:1], x[1:], atol=1e-3)
    assert model.settings["prompt"] == ["a cat", "a horse"]
    with pytest.raises(TypeError):
        model.settings["prompt"] = ["a dog"]


def test_a_prompt_changed_between_tilt_and_draw(rng):
    models = [WrappedModel(lambda z: z, 2, settings={"prompt": p}) for p in ("a cat", "a dog")]
    want = Attribute(lambda x: x[:, 0] > 0, {True: 0.6, False: 0.4})
    tilt = tilt_attributes(models[0], want, pool=2000, generator=rng)
    tilt.model = models[1]
    with pytest.raises(ValueError, match="model: expected the one whose data the energy sees, got another"):
        SNIS(pool=500).draw(tilt, 5, generator=rng)


def test_guidance_without_a_prompt_is_refused(unet):
    with pytest.raises(ValueError, match="guidance_scale: expected 1 without a prompt"):
        from_diffusers(unet, diffusers.DDIMScheduler(), guidance_scale=3.0)


def test_pipelines_whose_network_reads_text():
    pipe = TextToImage()
    with pytest.raises(ValueError, match="prompt: expected text, which the network reads, got None"):
        from_diffusers(pipe)
    pipe.encode_prompt = lambda *_: (torch.ones(1, 2, 4), None, torch.ones(1, 4))
    with pytest.raises(ValueError, match="pipeline_or_unet: expected one whose network reads one embedding"):
        from_diffusers(pipe, prompt="a cat")


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (lambda: "a pipeline", {}, "pipeline_or_unet: expected a pipeline with unet or transformer"),
        (lambda: network(1, num_class_embeds=3), {}, "pipeline_or_unet: expected a network of noise, time and text"),
        (lambda: network(1, sample_size=None), {}, "pipeline_or_unet: expected a network with a sample_size"),
        (TextToImage, {"prompt": 3}, "prompt: expected text, or a mapping of texts to shares"),
        (lambda: network(1), {"steps": 2000}, "steps: expected at most the 1000"),
    ],
)
def test_what_is_no_function_of_noise_and_text(made, options, message):
    with pytest.raises(ValueError, match=message):
        from_diffusers(made(), diffusers.DDIMScheduler(), **options)


def test_another_schedule_is_another_model(unet):
    made = [from_diffusers(unet, diffusers.DDIMScheduler(beta_end=end), steps=1) for end in (0.01, 0.02, 0.02)]
    keys = [model.settings["scheduler_config"] for model in made]
    assert keys[0] != keys[1] == keys[2]


def test_a_prompt_needs_a_pipeline_that_takes_one(unet):
    with pytest.raises(ValueError, match="prompt: expected a pipeline that takes one"):
        from_diffusers(unet, diffusers.DDIMScheduler(), prompt="a cat")


class Style(nn.Module):
    z_dim, num_ws = 4, 2

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.power, self.out = power, nn.Linear(4, 12)

    def mapping(self, z, c, truncation_psi=1.0):
        return truncation_psi * (z**self.power)[:, None].repeat(1, 2, 1)

    def synthesis(self, w, noise_mode="random"):
        noise = 0 if noise_mode == "const" else torch.randn(len(w), 12)
        return (self.out(w.mean(1)) + noise).view(-1, 3, 2, 2)


def test_stylegan_in_both_spaces():
    g = Style()
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_stylegan(g, truncation_psi=0.5).decode(z), g.synthesis(g.mapping(z, None, 0.5), "const"))
    assert from_stylegan(g, space="w").error < 0.02
    assert from_stylegan(Style(3), space="w").error > 0.05
    with pytest.raises(ValueError, match="G: expected mapping"):
        from_stylegan(nn.Linear(1, 1))


def test_a_flow_has_exact_codes(rng):
    flows = pytest.importorskip("zuko.flows")
    torch.manual_seed(0)
    flow = flows.NSF(2, context=1, transforms=1, hidden_features=(8,))
    model = copy.deepcopy(from_zuko(flow, torch.ones(1)))
    x = model.decode(torch.randn(9, 2, generator=rng))
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda u: model.encode(u[None])[0], u) for u in x])
    base = torch.distributions.Normal(0, 1).log_prob(model.encode(x)).sum(1)
    wanted = flow(torch.ones(1)).log_prob(x)
    assert torch.allclose(base + torch.linalg.slogdet(jacobian)[1], wanted, atol=1e-3)
    with pytest.raises(ValueError, match="flow: expected a distribution with transform and base"):
        from_zuko(lambda: torch.distributions.Normal(0, 1))
    for wrong, context in ((nn.Linear(2, 2), None), (flow, None), (flow, torch.ones(2)), (flow, torch.ones(5, 1))):
        with pytest.raises(ValueError, match=r"pass a flow, and context= with as many|context: expected one vector"):
            from_zuko(wrong, context)


SPANS = [[SimpleNamespace(dim=1, activation_fn="tanh"), SimpleNamespace(dim=2, activation_fn="softmax")]]


def table(rows: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"value": rows[:, 0], "kind": np.where(rows[:, 1] > rows[:, 2], "a", "b")})


def ctgan() -> SimpleNamespace:
    """The attributes of a fitted CTGAN: three normal numbers and a condition of two categories, .25 and .75."""
    net = nn.Linear(5, 3)
    net.weight.data = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 2.0, 0], [0, 0, 0, 0, 2.0]])
    net.bias.data.zero_()
    sampler = SimpleNamespace(
        _discrete_column_category_prob=np.array([[0.25, 0.75]]), _n_categories=2, _n_discrete_columns=1
    )
    transformer = SimpleNamespace(output_info_list=SPANS, inverse_transform=table)
    return SimpleNamespace(_generator=net, _embedding_dim=3, _data_sampler=sampler, _transformer=transformer)


def test_ctgan_has_its_own_distribution(rng):
    model = from_ctgan(ctgan())
    rows = model.frame(model.decode(torch.randn(20_000, model.latent_dim, generator=rng)))
    # Gumbel noise over logits (2, 0) or (0, 2): category a in σ(2) or σ(−2) of the draws.
    right = 1 / (1 + np.exp(-2))
    assert (rows["kind"] == "a").mean() == pytest.approx(0.25 * right + 0.75 * (1 - right), abs=0.015)
    want = Attribute(lambda x: model.frame(x)["kind"].to_numpy(), {"a": 0.5, "b": 0.5}, "kind")
    tilt = tilt_attributes(model, want, pool=5000, generator=rng)
    drawn = model.frame(SNIS(pool=5000).draw(tilt, 2000, generator=rng).x)
    assert (drawn["kind"] == "a").mean() == pytest.approx(0.5, abs=0.05)
    tilted = TableDebiaser({"kind": {"a": 0.5}}, model=model, pool=5000).fit(model.sample(500, rng))
    assert (tilted.sample(4000)["kind"] == "a").mean() == pytest.approx(0.5, abs=0.03)


class TVAEDecoder(nn.Module):
    def forward(self, z):
        return torch.cat([z[:, :1], z[:, 1:], -z[:, 1:]], 1), torch.full((3,), 0.5)


class Processor:
    """sdv's preprocessing, which numbers rows from where it was left."""

    at = 0

    def reset_sampling(self):
        self.at = 0

    def reverse_transform(self, table):
        self.at += len(table)
        return table.assign(n=np.arange(self.at - len(table), self.at))


def test_tvae_and_sdv(rng):
    transformer = SimpleNamespace(output_info_list=SPANS, inverse_transform=table)
    fitted = SimpleNamespace(decoder=TVAEDecoder(), embedding_dim=2, transformer=transformer)
    model = from_ctgan(fitted)
    u = torch.zeros(2, 3)
    u[1, 2] = 2.0
    assert model.frame(model.decode(u))["value"].tolist() == [0.0, 1.0]  # two of the spread of .5
    outer = SimpleNamespace(_model=fitted, _data_processor=Processor())
    again = from_sdv(outer)
    frames = [again.frame(model.decode(u)) for _ in range(2)]
    assert list(frames[0].columns) == ["value", "kind", "n"]
    assert frames[0].equals(frames[1])


def test_other_synthesizers_of_sdv_are_refused():
    copula = SimpleNamespace(_model=object(), _data_processor=object())
    with pytest.raises(ValueError, match="synthesizer: expected a CTGANSynthesizer or TVAESynthesizer"):
        from_sdv(copula)


@pytest.mark.parametrize("make", [from_ctgan, from_sdv])
def test_what_was_not_fitted_is_refused(make):
    with pytest.raises(ValueError, match="synthesizer: expected a fitted"):
        make(nn.Linear(1, 1))


def test_a_label_is_tilted_with_the_code(rng):
    model = WrappedModel(lambda z, y: torch.stack([z[:, 0], y.to(z)], 1), 1, labels=[0.2, 0.8])
    x = model.decode(torch.randn(20_000, 2, generator=rng))
    assert float(x[:, 1].mean()) == pytest.approx(0.8, abs=0.01)
    want = Attribute(lambda x: x[:, 1] > 0.5, {True: 0.5, False: 0.5}, "label")
    draws = SNIS(pool=5000).draw(tilt_attributes(model, want, pool=5000, generator=rng), 2000, generator=rng)
    assert float(draws.x[:, 1].mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_and_batch_size(dtype, rng):
    sizes = []

    class Counting(nn.Linear):
        def forward(self, z):
            sizes.append(len(z))
            return super().forward(z)

    model = WrappedModel(Counting(2, 3).eval(), 2, batch_size=7, dtype=dtype, device="cpu", offload=True)
    sizes.clear()
    assert model.decode(torch.randn(20, 2, generator=rng)).shape == (20, 3)
    assert sizes == [7, 7, 6]
    quick, x = TiltRecipe(steps=5, held_out=100), model.decode(torch.randn(50, 2, generator=rng))
    tilt = tilt_generator(model, x, features=lambda x: x, recipe=quick, pool=100, generator=rng)
    assert tilt.energy(torch.randn(5, 2, generator=rng)).isfinite().all()


def test_codes_that_were_cut_off(rng):
    """Normal codes become those of N(0, 1) within ±1, whose variance is 1 − 2φ(1) / (2Φ(1) − 1) = .291."""
    x = WrappedModel(lambda z: z, 1, truncation=1.0).decode(torch.randn(20_000, 1, generator=rng))
    assert float(x.abs().max()) <= 1
    assert float(x.var()) == pytest.approx(0.291, abs=0.01)
    label = WrappedModel(lambda z, y: z + 10 * y[:, None], 1, truncation=1.0, labels=[0.5, 0.5])
    assert label.decode(torch.tensor([[9.0, 1.0]])).tolist() == [[11.0]]
    assert WrappedModel(lambda z, truncation=1.0: z, 1, truncation=float("inf")).decode(9 * torch.ones(1, 1)) == 9


def named(**attributes):
    decoder = nn.Identity()
    for name, value in attributes.items():
        setattr(decoder, name, value)
    return decoder


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (lambda z, truncation=0.4: z, "truncation: expected where the decoder's normal codes were cut off, got None"),
        (named(truncation=0.7), "truncation: expected where"),
        (
            named(prior=torch.distributions.Uniform(-1.0, 1.0)),
            "decoder: expected standard normal codes, got codes of U",
        ),
        (lambda z: z / 0, "decoder: expected finite data"),
        (lambda z: z + torch.randn(()), "decoder: expected the same data for the same codes"),
        (lambda z: z - z.mean(0), "decoder: expected data of a code whatever its batch"),
    ],
)
def test_decoders_that_are_refused(decoder, message):
    with pytest.raises(ValueError, match=message):
        WrappedModel(decoder, 2)


def test_what_is_probed():
    writes = WrappedModel(lambda z: z.mul_(2), 2)
    z = torch.ones(3, 2)
    assert writes.decode(z).tolist() == [[2.0, 2.0]] * 3
    assert z.tolist() == [[1.0, 1.0]] * 3
    assert not WrappedModel(torch.sign, 2).decode(z).requires_grad
    assert WrappedModel(torch.sigmoid, 2).differentiable
    assert not WrappedModel(lambda z: z.detach(), 2).differentiable
    low, high = WrappedModel(lambda z: 255 * torch.sigmoid(z), 2).range
    assert 0 < low < high < 255
    assert WrappedModel(named(prior=torch.distributions.Normal(0.0, 1.0)), 2).range == pytest.approx(
        WrappedModel(nn.Identity(), 2).range
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0.5, 0.6]}, "labels: expected shares that sum to 1"),
        ({"batch_size": 0}, "batch_size: expected a whole number"),
        ({"truncation": "a"}, "truncation: expected a number"),
        ({"dtype": torch.int32}, "dtype: expected a floating-point type"),
        ({"device": "gpu"}, "device: expected"),
        ({"labels": [0.5, 0.5]}, "decoder: expected one that takes .* and labels= where it takes them"),
        ({"offload": True}, "device: expected where an offloaded decoder works"),
        ({"dtype": torch.float16, "decoder": lambda z: z}, "decoder: expected a module, which can be moved"),
    ],
)
def test_bad_placement(options, message):
    with pytest.raises(ValueError, match=message):
        WrappedModel(**{"decoder": nn.Identity(), "latent_dim": 2} | options)
