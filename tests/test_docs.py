"""The code of every page runs, in order: doctests print what they say, and other code runs on small data."""

from __future__ import annotations

import doctest
import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import latentebm
from latentebm import missing
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.miwae import MIWAE
from latentebm.tilting.fit_tilt import TiltRecipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Pages of doctests, and how many examples they have at least; the others run on the small data of a test of their own.
PAGES = {"sampling.md": 30, "training.md": 30, "tables.md": 8, "attributes.md": 7, "your-generator.md": 12}
SCRIPTS = {"our-vae.md", "missing-data.md"}
SMALL = {"width": 16, "epochs": 2, "tilt_steps": 20, "folds": 2, "pool": 5000}


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_every_page_with_code_is_run():
    assert {path.name for path in DOCS.glob("*.md") if blocks(path)} == set(PAGES) | SCRIPTS


@pytest.mark.parametrize(("name", "least"), PAGES.items())
def test_docs_run(name, least):
    test = doctest.DocTestParser().get_doctest("\n".join(blocks(DOCS / name)), {}, name, str(DOCS / name), 0)
    assert len(test.examples) > least
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder to write in, a few hundred of the digits, and a debiaser that is small unless told otherwise."""
    data = latentebm.load_images("mnist")
    build, load = latentebm.Debiaser, latentebm.Debiaser.load

    def debiaser(**settings):
        return build(**{**SMALL, **settings, "verbose": False})

    debiaser.load = load
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latentebm, "load_images", lambda _: data[torch.arange(1500)], raising=False)
    monkeypatch.setattr(latentebm, "Debiaser", debiaser, raising=False)


def test_the_page_of_our_vae_runs(small, capsys):
    names = {}
    for block in blocks(DOCS / "our-vae.md"):
        exec(block, names)
    assert "torch.Size([1000, 1, 28, 28])" in capsys.readouterr().out
    assert torch.equal(names["same"].sample(5, seed=3).x, names["model"].sample(5, seed=3).x)


def test_the_page_of_missing_data_runs(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    whole = {"income": draw.normal(size=60), "city": list("abc") * 20, "owner": [0.0, 1.0] * 30}
    pd.DataFrame(whole).mask(draw.random((60, 3)) < 0.1).to_csv("holed.csv", index=False)
    monkeypatch.setattr(missing, "MIWAEImputer", functools.partial(missing.MIWAEImputer, steps=10, draws=10))
    quick = {"recipe": TiltRecipe(steps=5), "members": 2, "rounds": 1, "copies": 2, "draws": 20}
    monkeypatch.setattr(missing, "tilt_miwae", functools.partial(missing.tilt_miwae, **quick))
    x = torch.randn(40, 3, generator=rng)
    mask = torch.rand(40, 3, generator=rng) < 0.8
    model = MIWAE(["gaussian"] * 3, 1, width=8)
    fit_miwae(model, x, mask, MIWAERecipe(steps=5), generator=rng)
    given, names = {"model": model, "x": x, "mask": mask, "x_reference": x[:20], "mask_reference": mask[:20]}, {}
    for block in blocks(DOCS / "missing-data.md"):
        exec(block, names | given if "tilt_miwae" in block else names)
    assert names["X_missing"].shape == (1000, 5)
    assert names["pooled"].low < names["pooled"].estimate < names["pooled"].high
    assert names["complete"].notna().all(axis=None)


def test_the_readme_runs_in_order(small, capsys):
    names = {}
    ours, own = blocks(ROOT / "README.md")
    exec(ours, names)
    assert "torch.Size([1000, 1, 28, 28])" in capsys.readouterr().out
    exec(own, names)
    before, after = (float(number) for number in re.findall(r"tensor\(([\d.]+)\)", capsys.readouterr().out))
    assert (round(before, 2), round(after, 2)) == (0.43, 0.72)
    for block in (ours, own):
        assert len([line for line in block.splitlines() if line.strip()]) <= 12
