"""What is installed: a wheel holds the package, its page and its data, and nothing that runs on load."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from latentebm.data.shipped import SHIPPED

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_carries_the_data(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"latentebm/shipped/{name}" for name in SHIPPED} <= names
    assert {
        "latentebm/report/page.html",
        "latentebm/py.typed",
        "latentebm/__init__.pyi",
        "latentebm/sampling/compiled/perceptrons.cpp",
        "latentebm/cli/app.py",
    } <= names
    assert not any(name.startswith(("tests", "notebooks")) for name in names)


def test_no_pickle_anywhere():
    for path in sorted((ROOT / "latentebm").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text
        # Other people's published weights come in torch's format: its reader of plain tensors alone may open them.
        assert text.count("torch.load(") == len(re.findall(r"torch\.load\(\w+, weights_only=True", text))
        assert "allow_pickle=True" not in text
