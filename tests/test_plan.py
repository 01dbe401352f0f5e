"""The reference-size planner and the strength curve, on the small run."""

from __future__ import annotations

import json
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from latentebm.cli.app import app
from latentebm.disk.manifest import write_config
from latentebm.studies.plan import plan
from latentebm.studies.reopen import reopen
from latentebm.studies.strength_curve import plot_strength, strength_curve


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def opened(run):
    return reopen(run)


def test_plan_writes_its_table_and_figure(run, tmp_path):
    words = ["plan", run, "--sizes", "4,40", "--seeds", 2, "--samples", 800, "--pool", 5000, "--out", tmp_path]
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert "mean ± sd over seeds" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.csv", "plan.html", "plan.png"]
    table = pd.read_csv(tmp_path / "plan.csv")
    assert table[["size", "seed", "images"]].to_numpy().tolist() == [[4, 0, 12], [4, 1, 12], [40, 0, 120], [40, 1, 120]]
    before = json.loads((run / "metrics.json").read_text())["untilted"]["tv"]
    assert table.loc[table["size"] == 40, "tv"].mean() < 0.7 * before
    refused = invoke(*words)
    assert refused.exit_code == 2
    assert "pass --overwrite" in refused.output
    again, begun = plan_stopped_once(run, tmp_path / "again", sizes=[4], seeds=2, samples=800, pool=5000)
    assert begun == [[(4, 0), (4, 1)], [(4, 1)]]
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds").iloc[:2])


def plan_stopped_once(run, out, **settings):
    """A plan stopped before its second row and asked for again: its table, and the rows that each call set out for."""
    begun = []

    def track(items, what):
        if what == "plan":
            begun.append(list(items))
        for i, item in enumerate(items):
            if what == "plan" and i == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        plan(run, out=out, track=track, **settings)
    assert [p.name for p in out.iterdir()] == [".plan.csv.unfinished"]
    with pytest.raises(ValueError, match="out: expected no unfinished run, got one of other settings"):
        plan(run, out=out, **{**settings, "samples": 801})
    table = plan(run, out=out, track=track, **settings)
    assert sorted(p.name for p in out.iterdir()) == ["plan.csv", "plan.html", "plan.png"]
    return table, begun


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "5,x"], "sizes: expected whole numbers"),
        (["--sizes", "5,100000"], "sizes: expected at most"),
        (["--seeds", "0"], "seeds: expected"),
        (["--samples", "5"], "samples: expected"),
        ([], "sizes: expected at most 95"),
    ],
)
def test_plans_that_cannot_be(run, tmp_path, monkeypatch, words, message):
    """They are refused before the judge is trained again."""
    monkeypatch.setattr("latentebm.studies.reopen.fit_judge", lambda *_: 1 / 0)
    result = invoke("plan", run, "--out", tmp_path, *words)
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_model_saved_alone_cannot_be_planned(opened, tmp_path):
    opened.model.save(tmp_path / "alone")
    result = invoke("plan", tmp_path / "alone")
    assert "a folder written by latentebm debias" in result.output


def test_reopening_finds_the_same_judge(run, opened, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    with np.load(run / "samples.npz") as samples:
        judged = opened.judge(opened.model.sample(len(samples["images"])).x)
    assert judged.shares == metrics["tilted"]["shares"]
    older = copytree(run, tmp_path / "older")  # a run of a version that kept no judge
    (older / "judge.safetensors").unlink()
    config = json.loads((older / "config.json").read_text())
    del config["manifest"]["judge.safetensors"]
    write_config(older / "config.json", config)
    again = reopen(older).classifier.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in opened.classifier.state_dict().items())


def test_strength_trades_ess_for_balance(opened):
    table = strength_curve(opened, strengths=(0, 0.5, 1), samples=1500)
    tv, ess = table["tv"].tolist(), table["ess"].tolist()
    assert tv[0] > tv[1] > tv[2]
    assert ess[0] == pytest.approx(1)
    assert ess[1] > ess[2]
    assert len(plot_strength(table).axes) == 4
    with pytest.raises(ValueError, match="samples: expected"):
        strength_curve(opened, samples=5)
    with pytest.raises(ValueError, match="seeds: expected"):
        strength_curve(opened, seeds=0)


def test_sample_takes_a_strength(run, tmp_path):
    assert invoke("sample", run, "-n", 5, "--strength", 0.5, "--out", tmp_path / "a.npz").exit_code == 0
    with np.load(tmp_path / "a.npz") as drawn:
        assert drawn["images"].shape == (5, 1, 8, 8)
    result = invoke("sample", run, "-n", 5, "--strength", 2, "--out", tmp_path / "b.npz")
    assert result.exit_code == 2
    assert "strength: expected a number in [0, 1.5]" in result.output
