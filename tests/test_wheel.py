"""What is installed: one wheel holds the package and its page, another the data, and nothing runs on load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from latentebm._version import __version__
from latentebm.data.shipped import SHIPPED

ROOT = Path(__file__).resolve().parents[1]


HOME = "https://example.org/me/latentebm"
LARGEST = 1_000_000  # bytes of the package's wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Both wheels, of the package and of its data."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    environment = {**os.environ, "LATENTEBM_REPOSITORY": HOME}
    for project in (ROOT, ROOT / "data"):
        subprocess.run([*command, str(project)], check=True, capture_output=True, env=environment)
    return [next(folder.glob(f"{name}-*.whl")) for name in ("latentebm", "latentebm_data")]


def test_the_wheel_is_small_and_carries_no_data(wheels):
    with zipfile.ZipFile(wheels[0]) as archive:
        names = set(archive.namelist())
    assert {
        "latentebm/report/page.html",
        "latentebm/py.typed",
        "latentebm/__init__.pyi",
        "latentebm/sampling/compiled/perceptrons.cpp",
        "latentebm/cli/app.py",
    } <= names
    assert not any(name.startswith(("tests", "notebooks", "data")) for name in names)
    assert wheels[0].name.startswith(f"latentebm-{__version__}-")
    assert wheels[0].stat().st_size < LARGEST


def test_images_and_links_of_the_readme_work_outside_the_repository(wheels):
    with zipfile.ZipFile(wheels[0]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    assert f"Project-URL: Source, {HOME}" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert all(link.startswith("https://") for link in links)
    ours = [link.removeprefix(f"{HOME}/").split("/HEAD/") for link in links if "/HEAD/" in link]
    assert all((ROOT / path.partition("#")[0]).exists() for _, path in ours)
    assert f"[![tests]({HOME}/actions/workflows/test.yml/badge.svg)]" in text
    assert {kind for kind, path in ours if path.endswith(".png")} == {"raw"}


def test_data_are_found_in_their_own_wheel_and_missed_by_name(wheels, tmp_path):
    """The package installed without a clone around it: without the data's wheel, then with it."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / wheel.name.split("-")[0])
    script = (
        f"from latentebm.data.shipped import shipped_file; [shipped_file(n) for n in {list(SHIPPED)}]; print('all')"
    )
    said = []
    for places in (["latentebm"], ["latentebm", "latentebm_data"]):
        path = os.pathsep.join(str(tmp_path / place) for place in places)
        command, environment = [sys.executable, "-P", "-c", script], {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        said.append(done.stdout + done.stderr.splitlines()[-1] if done.stderr else done.stdout)
    assert 'pip install "latentebm[data]"' in said[0]
    assert said[1] == "all\n"


def test_no_pickle_anywhere():
    for path in sorted((ROOT / "latentebm").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text
        # Other people's published weights come in torch's format: its reader of plain tensors alone may open them.
        assert text.count("torch.load(") == len(re.findall(r"torch\.load\(\w+, weights_only=True", text))
        assert "allow_pickle=True" not in text
