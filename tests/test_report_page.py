"""The page in a real browser, and its words: hostile names, missing figures, runs of earlier versions."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import shutil

import pandas as pd
import pytest
import torch
from PIL import Image

from latentebm.cli.console import print_table
from latentebm.evaluation.cluster_shares import cluster_balance
from latentebm.missing.imputation_report import write_imputation_report
from latentebm.report import render_report
from latentebm.report.compare_page import comparison_table, write_comparison
from latentebm.report.page import Page, Picture, command_line, render_page
from latentebm.report.run_tables import Table, metric_tables
from latentebm.report.table_page import table_page
from latentebm.report.words import balance, finding, headline, reliability, worries
from latentebm.studies.plan_page import HEAD, plan_figure, plan_page
from latentebm.workflow.tilt_card import tilt_card, tilt_page

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


def table_metrics():
    """Numbers of a run of ``latentebm table`` that misses its target and copies rows."""
    sides = {stage: {"name": HOSTILE, "value": v, "low": v - 0.05, "high": v + 0.05, "wanted": 0.0}
             for stage, v in (("real", 0.3), ("untilted", 0.3), ("tilted", 0.1))}  # fmt: skip
    likeness = {"marginals": {HOSTILE: 0.1, "b": 0.2}, "association": 0.1, "nearer": 0.8, "copies": 0.4}
    likeness |= {"copies_unseen": 0.0, "median": 1.0, "median_unseen": 1.0}
    scores = {"auc": 0.8, "accuracy": 0.7, "gap": 0.1}
    return {
        "targets": [{"name": HOSTILE, "wanted": 0.0, **sides}],
        "tilt": {"reliable": False, "ess": 0.01, "pareto_k": 0.9, "kl": 0.2, "repeated": 0.5},
        "utility": {"real": {**scores, "auc": 0.95}, "untilted": scores, "tilted": scores},
        "label": HOSTILE,
        "heldout_gain": 0.1,
        "heldout_nats": 2.0,
        "untilted": likeness,
        "tilted": likeness | {"marginals": {HOSTILE: 0.4, "b": 0.2}},
        "seconds": {"fit": 1.0},
    }


def tilt_files(folder):
    """Grids, numbers and settings of a run of ``latentebm tilt``."""
    (folder / "figures").mkdir()
    for name in ("before", "after"):
        Image.new("RGB", (64, 32), "grey").save(folder / "figures" / f"{name}.png")
    row = {"value": HOSTILE, "target": 0.5, "before": 0.1, "after": 0.48, "interval": [0.45, 0.51]}
    numbers = {"tilted": {"reliable": True, "ess": 0.4, "duplicates": 0.3}, "gain": None, "samples": 500}
    settings = {"model": "faces:build", "reference": None, "features": None, "attributes": [HOSTILE], "pool": 100}
    return folder, numbers | {"shares": {HOSTILE: [row]}}, settings | {"targets": ["a:.5,b:.5"], "out": "runs/x"}


def plan_rows():
    sizes = {"size": [5, 5, 50, 50], "seed": [0, 1, 0, 1], "reliable": [True, False, True, True]}
    return pd.DataFrame({**sizes, **{name: [0.3, 0.1, 0.06, 0.05] for name in HEAD}})


def pages(folder):
    """The page of each kind of run, of names as bad as can be."""
    holes = pd.DataFrame({HOSTILE: [1.0, 2.0, 3.0, 9.0, 9.0, 9.0], "empty": 0.0, "text": list("aabbab")})
    seen = pd.DataFrame({HOSTILE: [True] * 3 + [False] * 3, "empty": False, "text": [True] * 5 + [False]})
    made = {"x": write_imputation_report(folder / "i.html", holes, seen, name=HOSTILE, facts="9 cells.", command="c")}
    rows, before = plan_rows(), {"tv": 0.4}
    return {
        "debias": render_page(page()),
        "impute": made["x"].read_text(encoding="utf-8"),
        "table": table_page(table_metrics(), command_line("table", "a b.csv")),
        "tilt": tilt_page(*tilt_files(folder)),
        "plan": plan_page(rows, before, plan_figure(rows, before), command_line("plan", "runs/x", seeds=2)),
    }


KINDS = ("debias", "impute", "table", "tilt", "plan")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return pages(tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_every_kind_of_run_follows_the_same_plan(written, kind):
    html = written[kind]
    assert "<img src=x" not in html
    assert re.findall(r"<img(?![^>]*alt=)", html) == []
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    order = [html.index(part) for part in ("<h1>", 'class="verdict' if kind != "impute" else 'class="lead', "<img alt",
                                           "What to know before using it", "<h2>Numbers", 'id="command"')]  # fmt: skip
    assert order == sorted(order)
    assert "<details open" not in html


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=KINDS)
def opened(request, browser, written, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(written[request.param], encoding="utf-8")
    view = browser.new_page(viewport={"width": 360, "height": 800})
    said = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto(path.as_uri())
    yield request.param, view, said
    view.close()


def test_the_page_works_in_a_browser_of_360_pixels(opened):
    kind, view, said = opened
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    if kind in ("debias", "tilt"):
        view.click("[data-view=slide]")
        assert view.evaluate("[...document.querySelectorAll('.slider img')].every(i => i.naturalWidth == 64)")
        view.focus("input[type=range]")
        view.keyboard.press("End")
        assert view.evaluate("getComputedStyle(document.querySelector('.slider')).getPropertyValue('--cut')") == "100%"
        view.keyboard.press("Home")
        assert view.evaluate("getComputedStyle(document.querySelector('.slider')).getPropertyValue('--cut')") == "0%"
        view.click("[data-view=pair]")
    view.click("figure .zoom >> nth=0")
    assert view.evaluate("document.querySelector('dialog').open")
    view.keyboard.press("Escape")
    view.focus("summary")
    view.keyboard.press("Enter")
    assert view.evaluate("document.querySelector('details').open")
    view.click(".copy >> nth=0")
    view.wait_for_function(
        "['copied', 'press Ctrl-C'].includes(document.querySelector('#command + .copy').textContent)"
    )
    view.emulate_media(media="print")
    assert view.evaluate("getComputedStyle(document.querySelector('.copy')).display") == "none"
    view.emulate_media(media="screen")
    assert said == []


@pytest.mark.parametrize("opened", ["debias"], indirect=True)
def test_filter_and_sorting(opened):
    view = opened[1]
    view.click("#filter button:nth-child(2)")
    shown = "[...document.querySelectorAll('figure[data-group]')].map(f => !f.hidden)"
    assert view.evaluate(shown) == [True, False]
    view.click("#filter button:first-child")
    assert view.evaluate(shown) == [True, True]
    view.evaluate("document.querySelector('details').open = true")
    cells = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent).join('')"
    view.click("th:nth-child(2) button")
    assert view.evaluate(cells) == "bac"
    view.click("th:nth-child(2) button")
    assert view.evaluate(cells) == "cab"
    assert view.title() == HOSTILE.strip()


def test_axe_finds_no_violation(opened):
    axe = pytest.importorskip("axe_core_python.sync_playwright")
    kind, view, _ = opened
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for scheme in ("light", "dark") if kind == "debias" else ("light",):  # all have the same colours
        view.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(view)["violations"]
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
    assert balance(metrics(clusters=fair | {"balanced": None}))[0] == "note"


def test_draws_without_the_noise_of_raw_images_are_compared_over_gaps_alone():
    g = torch.Generator().manual_seed(0)

    def images(dark, light, noise):
        level = torch.cat([torch.full((dark,), 0.3), torch.full((light,), 0.7)])
        return level[:, None, None, None] + noise * (torch.rand(dark + light, 1, 8, 8, generator=g) - 0.5)

    reference = images(100, 100, 0.5)
    tv = [cluster_balance(reference, images(*n, 0.02), generator=g).tv for n in ((500, 500), (850, 150))]
    assert tv == pytest.approx([0, 0.35])
    # Noise that the draws have as well still parts clusters: nothing is merged.
    assert len(cluster_balance(reference, images(500, 500, 0.5), generator=g).reference) == 10
    one = cluster_balance(images(0, 200, 0.5), images(0, 500, 0.02), generator=g)
    assert (one.balanced, one.reference, one.draws) == (None, [1.0], [1.0])


def test_low_recall_and_copies_do_not_pass_without_a_word():
    side = {"shares": [0.5, 0.1], "tv": 0.4, "tv_corrected": 0.5, "other": 0.2, "recall": 0.002, "coverage": 0.5}
    judged = metrics(judged=True, target=[0.5, 0.5], data={"class_names": ["a", "b"]}, untilted=side)
    judged["tilted"] |= side | {"copied": 0.8, "duplicates": 0.3, "tv_interval": [0.38, 0.42]}
    said = " ".join(worries(judged))
    assert all(word in said for word in ("recall 0.002", "copies", "repeat", "reached in: b", "Freed", "none of"))
    assert (balance(judged)[0], headline(judged)) == ("bad", "Class a: 50.0 → 50.0 %, target 50 %")
    assert "stays" in finding(judged)


def test_a_loss_of_held_out_images_is_called_one():
    lost = {"judged": False, "tilted": {"heldout_gain": -0.25}}
    assert headline(lost) == "Held-out reference images lose 0.250 nats each"
    assert finding(lost).startswith("The tilt takes 0.250 nats from the mean log-likelihood bound")


def test_missing_numbers_print_as_dashes():
    side = dict.fromkeys(("log_z", "log_z_se", "ess", "pareto_k", "heldout_gain")) | {"sampler": "snis"}
    tables = metric_tables({"judged": False, "tilted": side, "generator": {}, "seconds": {"total": None}})
    assert [row[1] for table in tables for row in table.rows] == ["–", "– ± –", "– %", "–", "snis", "–"]


def test_a_comparison_has_a_column_for_each_run():
    table = comparison_table({"a": metrics(seconds={"total": 1.0}), HOSTILE: metrics(seconds={"total": None})})
    assert table.head == ["measure", "a", HOSTILE]
    assert ["seconds", "1.000", "–"] in table.rows
    with pytest.raises(ValueError, match="runs: expected two run folders"):
        write_comparison(["one"], "x.html")


def old_run(tmp_path, lacking=()):
    """A judged run's folder, hand-made, its metrics without some keys (dotted) and without figures."""
    side = {"shares": [0.6, 0.4], "shares_interval": [[0.5, 0.7], [0.3, 0.5]], "shares_corrected": [0.6, 0.4]}
    side |= {"other": 0.0, "tv": 0.1, "tv_interval": [0.05, 0.15], "tv_corrected": 0.1, "kl": 0.1, "l2": 0.1}
    side |= {"absent": 0, "confidence": 0.9, "by_class": [None, None], "copied": 0.5}
    side |= dict.fromkeys(("frechet", "precision", "recall", "density", "coverage"), 0.5)
    weights = {"ess": 0.4, "pareto_k": 0.2, "pareto_k_threshold": 0.7, "log_z": 0.0, "log_z_se": 0.1, "reliable": True}
    made = {
        "judged": True,
        "unjudged": "",
        "samples": 100,
        "target": [0.5, 0.5],
        "data": {"class_names": ["a", HOSTILE], "biased": [9, 1], "reference": [5, 5]},
        "classifier": {"accuracy": 0.98},
        "generator": {"train_loss": 1.0},
        "untilted": dict(side),
        "tilted": {**side, **weights, "sampler": "snis", "heldout_gain": 0.2},
        "seconds": {"total": 1.0},
        "notes": [],
    }
    for path in lacking:
        *parents, last = path.split(".")
        functools.reduce(dict.__getitem__, parents, made).pop(last)
    (tmp_path / "metrics.json").write_text(json.dumps(made), encoding="utf-8")
    config = {"latentebm": "0.1.0", "models": {}, "manifest": {}, "debiaser": {}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return made


def test_a_run_without_figures_says_so(tmp_path):
    old_run(tmp_path)
    html = render_report(tmp_path).read_text(encoding="utf-8")
    assert "no figures/prior_draws.png" in html
    assert "<img src=x" not in html
    assert "lack numbers" not in html


@pytest.mark.parametrize("table", ["", "tilted", "untilted", "data"])
def test_a_run_of_an_earlier_version_says_what_it_lacks(tmp_path, table):
    made = old_run(tmp_path)
    for key in made[table] if table else made:
        lost = f"{table}.{key}".lstrip(".")
        old_run(tmp_path, [lost])
        html = render_report(tmp_path).read_text(encoding="utf-8")
        if lost in ("tilted.by_class", "seconds", "target", "untilted.shares", "tilted.log_z", "data.class_names"):
            assert f"no &#39;{key}&#39;" in html, lost


def test_names_obey_neither_the_terminal_nor_markdown(capsys, tmp_path):
    bad = "\x1b[2J[bold]x[/bold] | \u202e **b** <script>"
    print_table("t", ["class", bad], [[bad, "1"]])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[bold]x[/bold]" in said
    _, numbers, settings = tilt_files(tmp_path)
    card = tilt_card({**numbers, "shares": {bad: numbers["shares"][HOSTILE]}}, settings | {"model": bad})
    assert "\x1b" not in card
    assert not re.search(r"(?<!\\)<script>|(?<!\\)\*\*b", card.split("```json")[0])
    assert len({line.count(" | ") for line in card.splitlines() if line.startswith("| ")}) == 1
