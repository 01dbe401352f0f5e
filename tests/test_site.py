"""The documentation site builds without a warning and without a network; snippets of the pages run in test_docs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import latentebm

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_holds_every_public_name(site):
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    assert [name for name in latentebm.__all__ if f'.{name}"' not in pages and not name.startswith("_")] == []


def test_the_search_of_pages_opened_as_files_fetches_nothing(site):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view, fetched = browser.new_page(viewport={"width": 1400, "height": 800}), []
        view.on("request", lambda request: fetched.append(request.url))
        view.goto((site / "index.html").as_uri())
        view.evaluate("document.querySelector('[data-md-toggle=search]').click()")
        view.fill("input[name=query]", "Pareto")
        view.press("input[name=query]", "End")
        view.wait_for_selector(".md-search-result__item", state="attached")
        assert [url for url in fetched if not url.startswith(("file:", "data:", "about:"))] == []
        browser.close()
