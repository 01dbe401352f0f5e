"""The documentation site builds without a warning and without a network; snippets of the pages run in test_docs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import latentebm

ROOT = Path(__file__).resolve().parents[1]


def test_the_site_builds_strictly_and_holds_every_public_name(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site" / "api").glob("*.html"))
    assert [name for name in latentebm.__all__ if f'.{name}"' not in pages and not name.startswith("_")] == []
