"""The page in a real browser, and its words: hostile names, missing figures, runs of earlier versions."""

from __future__ import annotations

import base64
import io
import re
import shutil

import pytest
from PIL import Image

from latentebm.report.compare_page import comparison_table, write_comparison
from latentebm.report.page import Page, Picture, render_page
from latentebm.report.run_tables import Table, metric_tables
from latentebm.report.words import balance, finding, headline, reliability, worries

HOSTILE = '<img src=x onerror="document.title=1">&"\'{{ 7 * 7 }} 数字 ' + "long" * 30


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (64, 32), colour).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def page():
    rows = [["a", "10.5 %"], ["b", "9 %"], ["c", "–"]]
    return Page(
        title=HOSTILE,
        headline=HOSTILE,
        lead="lead",
        verdicts=[("good", "Right.", "why"), ("bad", "Wrong.", HOSTILE), ("note", "Note.", "")],
        before=Picture("grey squares", "Before.", png("grey")),
        after=Picture("blue squares", "After.", png("blue")),
        pictures=[Picture("red", "All.", png("red"), wide=True)]
        + [Picture(f"class {name}", name, png("green"), group=name) for name in ("cat", HOSTILE)],
        worries=["Only 0.2 % of the real images resemble a draw."],
        tables=[Table("Shares", "What they are.", ["class", "share"], rows)],
        command="latentebm debias --out 'a b'",
    )


def test_every_text_is_escaped_and_the_script_is_short():
    html = render_page(page())
    assert "<img src=x" not in html
    assert "49" not in re.sub(r"base64,[\w+/=]+", "", html)
    assert html.split("<script>")[1].split("</script>")[0].strip().count("\n") < 60
    assert re.findall(r"<img(?![^>]*alt=)", html) == []
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(page()), encoding="utf-8")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 360, "height": 800})
        said = []
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.goto(path.as_uri())
        yield view, said
        browser.close()


def test_the_page_works_in_a_browser_of_360_pixels(opened):
    view, said = opened
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    view.click("[data-view=slide]")
    assert view.evaluate("[...document.querySelectorAll('.slider img')].every(i => i.naturalWidth == 64)")
    view.focus("input[type=range]")
    view.keyboard.press("End")
    assert view.evaluate("getComputedStyle(document.querySelector('.slider')).getPropertyValue('--cut')") == "100%"
    view.click("#filter button:nth-child(2)")
    shown = "[...document.querySelectorAll('figure[data-group]')].map(f => !f.hidden)"
    assert view.evaluate(shown) == [True, False]
    view.click("#filter button:first-child")
    assert view.evaluate(shown) == [True, True]
    view.click("summary")
    cells = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent).join('')"
    view.click("th:nth-child(2) button")
    assert view.evaluate(cells) == "bac"
    view.click("th:nth-child(2) button")
    assert view.evaluate(cells) == "cab"
    view.click("figure .zoom >> nth=2")
    assert view.evaluate("document.querySelector('dialog').open")
    view.keyboard.press("Escape")
    assert said == []
    assert view.title() == HOSTILE.strip()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(opened, scheme):
    axe = pytest.importorskip("axe_core_python.sync_playwright")
    opened[0].emulate_media(color_scheme=scheme)
    found = axe.Axe().run(opened[0])["violations"]
    assert [(f["id"], [node["html"][:80] for node in f["nodes"]]) for f in found] == []


def metrics(**changed):
    """Numbers of an unlabelled run that fails under healthy weights."""
    clusters = {"tv": 0.29, "interval": [0.27, 0.31], "floor": 0.04, "balanced": False, "lacking": [1]}
    clusters |= {"reference": [0.7, 0.3], "draws": [0.96, 0.04]}
    tilted = {"heldout_gain": 0.55, "reliable": True, "ess": 0.4, "pareto_k": 0.2, "pareto_k_threshold": 0.7}
    return {"judged": False, "tilted": tilted, "clusters": clusters, **changed}


def test_an_unlabelled_run_that_lacks_a_cluster_has_no_right_balance():
    assert reliability(metrics()).startswith("The importance weights are healthy")
    tone, words = balance(metrics())
    assert (tone, words.endswith("cluster 2 (30 → 4 %).")) == ("bad", True)
    fair = {**metrics()["clusters"], "balanced": True, "lacking": []}
    assert balance(metrics(clusters=fair))[0] == "good"
    assert balance(metrics(clusters=None))[0] == "note"


def test_low_recall_and_copies_do_not_pass_without_a_word():
    side = {"shares": [0.5, 0.1], "tv": 0.4, "tv_corrected": 0.5, "other": 0.2, "recall": 0.002, "coverage": 0.5}
    judged = metrics(judged=True, target=[0.5, 0.5], data={"class_names": ["a", "b"]}, untilted=side)
    judged["tilted"] |= side | {"copied": 0.8, "duplicates": 0.3, "tv_interval": [0.38, 0.42]}
    said = " ".join(worries(judged))
    assert all(word in said for word in ("recall 0.002", "copies", "repeat", "reached in: b", "Freed", "none of"))
    assert (balance(judged)[0], headline(judged)) == ("bad", "Class a: 50.0 → 50.0 %, target 50 %")
    assert "stays" in finding(judged)


def test_missing_numbers_print_as_dashes():
    side = dict.fromkeys(("log_z", "log_z_se", "ess", "pareto_k", "heldout_gain")) | {"sampler": "snis"}
    tables = metric_tables({"judged": False, "tilted": side, "generator": {}, "seconds": {"total": None}})
    assert [row[1] for table in tables for row in table.rows] == ["–", "– ± –", "– %", "–", "snis", "–"]


def test_a_comparison_has_a_column_for_each_run():
    table = comparison_table({"a": metrics(seconds={"total": 1.0}), HOSTILE: metrics(seconds={"total": None})})
    assert table.head == ["measure", "a", HOSTILE]
    assert ["seconds", "1.000", "–"] in table.rows
    with pytest.raises(ValueError, match=r"runs: expected .* 2"):
        write_comparison(["one"], "x.html")
