"""A user's type checker sees the true types of the public names, and their misuse."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

import latentebm

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import torch
from latentebm import SNIS, Debiaser, LatentTilt, debias, load_images

model = Debiaser(latent_dim=2)
images = load_images("mnist").images
draws = model.fit(images, images).sample(10)
reveal_type(draws)
reveal_type(SNIS(pool=10).draw)
draws.latnet
model.sample(number=10)
load_images(5)
"""


def test_the_stub_names_what_is_public():
    stub = (ROOT / "latentebm" / "__init__.pyi").read_text(encoding="utf-8")
    assert [
        a for a, b in re.findall(r"import (\w+) as (\w+)$", stub, flags=re.MULTILINE) if a == b
    ] == latentebm.__all__


def test_mypy_knows_types_and_finds_mistakes(tmp_path):
    script = tmp_path / "user.py"
    script.write_text(SCRIPT, encoding="utf-8")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    found, _, _ = api.run([*options, str(script)])
    assert 'Revealed type is "latentebm.sampling.draws.Draws"' in found
    assert "generator: torch._C.Generator" in found
    for mistake in (
        '"Draws" has no attribute "latnet"',
        'argument "number" for "sample"',
        'to "load_images" has incomp',
    ):
        assert mistake in found
    assert "Found 3 errors" in found
