"""Stable Diffusion itself, tiny and random: CLIP's tokenizer and text model, the network that reads it, and the VAE."""

from __future__ import annotations

import json

import pytest
import torch

from latentebm import SNIS, Attribute, from_diffusers, load_tilt, tilt_attributes
from latentebm.adapters.from_module import WrappedModel

diffusers = pytest.importorskip("diffusers", reason='pip install "latentebm[diffusion]"')
transformers = pytest.importorskip("transformers", reason="pip install transformers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers itself
TRUSTED = [__name__.partition(".")[0]]
LETTERS = [chr(c) + end for end in ("", "</w>") for c in range(ord("a"), ord("z") + 1)]
CUT = -0.077


def lit(x):
    return x.mean((1, 2, 3)) > CUT


def clip(folder):
    """A tokenizer of letters, and a text model of one layer."""
    words = {word: i for i, word in enumerate([*LETTERS, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53, "vocab_size": 54}
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPTextConfig(**ends, **sizes, max_position_embeddings=8)
    return transformers.CLIPTokenizer(*files, model_max_length=8), transformers.CLIPTextModel(config).eval()


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    torch.manual_seed(0)
    reader, text = clip(tmp_path_factory.mktemp("clip"))
    small = {"block_out_channels": (8,), "norm_num_groups": 4}
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    reads = {"layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 2, "mid_block_type": None}
    unet = diffusers.UNet2DConditionModel(8, 4, 4, **small, **blocks, **reads).eval()
    vae = diffusers.AutoencoderKL(3, 3, **small, latent_channels=4).eval()
    schedule = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)
    made = diffusers.StableDiffusionPipeline(vae, text, reader, unet, schedule, None, None, None, False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_its_own_images(pipe, name):
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = {"num_inference_steps": 2, "output_type": "pt", "height": 8, "width": 8}
    texts = ["a cat", "a dog"]
    own = pipe(texts, guidance_scale=3.0, latents=z.repeat(2, 1, 1, 1), **plain).images
    for text, image in zip(texts, own, strict=True):
        made = from_diffusers(pipe, steps=2, prompt=text, guidance_scale=3.0)
        with torch.no_grad():
            assert torch.allclose(made.decode(z.flatten(1))[0] / 2 + 0.5, image, atol=1e-5)
    assert not torch.allclose(*own, atol=1e-4)


def test_noise_and_prompt_are_tilted_together_and_kept(pipe, tmp_path, rng):
    def built(*words: str) -> WrappedModel:
        return from_diffusers(pipe, steps=1, prompt=dict(zip(words, (0.3, 0.7), strict=True)), guidance_scale=2.0)

    light = Attribute(lit, {True: 0.7, False: 0.3}, "lit")
    tilt = tilt_attributes(built("cat", "dog"), light, pool=240, generator=rng)
    draws = SNIS(pool=240).draw(tilt, 120, generator=rng)
    assert lit(draws.x).float().mean() == pytest.approx(0.7, abs=0.15)
    back = load_tilt(tilt.save(tmp_path / "tilt"), built("cat", "dog"), trusted=TRUSTED)
    assert torch.equal(back.energy(draws.latent), tilt.energy(draws.latent))
    with pytest.raises(ValueError, match="expected the one that the tilt was saved from"):
        load_tilt(tmp_path / "tilt", built("cat", "cow"), trusted=TRUSTED)
