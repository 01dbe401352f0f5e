"""A user's type checker sees the true types of the public names, and their misuse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api

import latentebm

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from latentebm import SNIS, Debiaser, load_images

model = Debiaser(latent_dim=2, network="mpl")
images = load_images("mnist").images
draws = model.fit(images, images).sample(10)
reveal_type(draws)
draws.latnet
model.sample(number=10)
load_images(5)
SNIS(pool=10).draw(model.tilt(), 5)
total: int = draws.diagnostics
"""
STRICT = "".join(
    f"{flag} = true\n"
    for flag in (
        "check_untyped_defs",
        "disallow_any_generics",
        "disallow_subclassing_any",
        "disallow_untyped_calls",
        "disallow_untyped_decorators",
        "extra_checks",
        "strict_equality",
        "warn_return_any",
    )
)  # of mypy --strict, what the package's own check does not ask for already
MISTAKES = (4, 8, 9, 10, 11, 12)  # lines: a choice, an attribute, a name, a type, what is missing, a result


def test_the_stub_names_what_is_public():
    stub = (ROOT / "latentebm" / "__init__.pyi").read_text(encoding="utf-8")
    assert [
        a for a, b in re.findall(r"import (\w+) as (\w+)$", stub, flags=re.MULTILINE) if a == b
    ] == latentebm.__all__


def test_mypy_knows_types_and_finds_all_mistakes(tmp_path):
    script, config = tmp_path / "user.py", tmp_path / "pyproject.toml"
    script.write_text(SCRIPT, encoding="utf-8")
    # Strict for the user's file alone, so that what the type check of the package found out is used again.
    overrides = f'[[tool.mypy.overrides]]\nmodule = "user"\n{STRICT}'
    config.write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8") + overrides, encoding="utf-8")
    found, _, _ = api.run(["--config-file", str(config), "--cache-dir", str(ROOT / ".mypy_cache"), str(script)])
    assert 'Revealed type is "latentebm.sampling.draws.Draws"' in found
    assert tuple(int(line) for line in re.findall(r"user.py:(\d+): error", found)) == MISTAKES


def test_pyright_finds_all_mistakes(tmp_path):
    (tmp_path / "user.py").write_text(SCRIPT, encoding="utf-8")
    command = ["pyright", "--outputjson", "--pythonpath", sys.executable, "user.py"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if shutil.which("pyright", path=environment["PATH"]) is None or shutil.which("node") is None:
        pytest.skip("no pyright, or no node to run it, on this machine")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    lines = {item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"}
    assert lines == set(MISTAKES)
