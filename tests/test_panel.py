"""Several judges: what their mean and its interval hold, and what a run says with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from latentebm.data.images import Images
from latentebm.evaluation.fixed_features import fixed_features
from latentebm.evaluation.panel_shares import panel_shares
from latentebm.report.run_tables import metric_tables
from latentebm.report.words import finding
from latentebm.workflow.data_notes import data_notes
from latentebm.workflow.panel_metrics import copied
from latentebm.workflow.problem import Problem

from .conftest import bars


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_interval_holds_both_the_draws_and_the_judges():
    read = torch.arange(1000) % 4 // 3  # a quarter is class 1
    alike = panel_shares(read.expand(3, -1), read, "abc", (0, 1), (0.5, 0.5), generator=rng())
    assert (alike.shares, alike.tv, alike.disagreed) == ([0.75, 0.25], 0.25, 0.0)
    # Judges that agree leave the binomial error alone: 1.96 √(.75 · .25 / 1000).
    wide = 1.96 * (0.75 * 0.25 / 1000) ** 0.5
    assert alike.shares_interval[1] == pytest.approx((0.25 - wide, 0.25 + wide))
    assert (alike.tv_interval[1] - alike.tv_interval[0]) / 2 == pytest.approx(wide, rel=0.25)
    # Two judges that read shares p ± δ add δ² √2² / 2 to the variance, whatever the number of draws.
    other = (torch.arange(1000) % 4 // 2).long()  # a half is class 1
    apart = panel_shares(torch.stack([read, other]), read, "ab", (0, 1), (0.5, 0.5), generator=rng())
    half = (apart.shares_interval[1][1] - apart.shares_interval[1][0]) / 2
    assert apart.shares[1] == pytest.approx(0.375)
    assert half > 1.96 * 0.125
    assert (apart.meant["tv"], apart.each["b"]["tv"], apart.disagreed) == (0.25, 0.0, 0.25)


def test_fixed_features_know_directions_and_places_but_not_brightness():
    x = torch.zeros(3, 1, 16, 16)
    x[0, 0, :, 8:], x[1, 0, :, 8:], x[2, 0, 8:, :] = 1.0, 0.3, 1.0  # two upright edges and a level one
    edge, dim, level = fixed_features(x)
    assert torch.allclose(edge, dim, atol=1e-5)
    assert float(edge @ level) == pytest.approx(0, abs=1e-5)
    assert edge.view(8, 4, 4).sum((1, 2)).argmax() == 0  # grey values rise to the right


def test_copies_are_seen_without_labels_too():
    data = bars(400, 0)
    unlabelled = Problem(Images(data.images[:300]), Images(data.images[300:]))
    fresh, known = bars(200, 5).float01(), unlabelled.reference.float01()
    assert copied(unlabelled, known, None, rng()) == 1.0
    assert copied(unlabelled, fresh, None, rng()) == pytest.approx(0.5, abs=0.15)


def test_what_is_odd_about_the_data_is_said():
    data = bars(30, 0)
    one = torch.cat([torch.nonzero(data.labels == 0).flatten(), torch.nonzero(data.labels == 1)[:1].flatten()])
    known = {"classes": (0, 1, 2), "class_names": ("left", "upper", "centre")}
    notes = data_notes(Problem(data[torch.arange(5)], data[one], **known))
    shared = len(set(one.tolist()) & set(range(5)))
    assert notes[0].startswith("The reference has 11 images, the biased set 5:")
    assert notes[1].startswith(f"{shared} of the 11 reference images are among the biased images")
    assert notes[2].startswith("The reference has a single image of upper:")
    unused = data_notes(Problem(Images(data.images[:20]), data[torch.arange(20, 30)]))
    assert unused == ["The labels of the reference are not used: the data have none, and nothing is fitted to labels."]
    assert data_notes(Problem(data[torch.arange(20)], data[torch.arange(20, 30)])) == []


def test_a_run_reports_every_judge_and_its_controls(run):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    panel = metrics["panel"]
    assert set(panel) == {"accuracy", "untilted", "tilted", "real", "reconstructed"}
    assert panel["real"]["tv"] < 0.1 < panel["untilted"]["tv"]
    assert panel["tilted"]["fixed_features"]["frechet"] > panel["real"]["fixed_features"]["frechet"]
    assert f"{panel['tilted']['tv']:.3f}" in finding(metrics)
    assert [table.title for table in metric_tables(metrics)][1] == "Several judges"
    assert 0.3 < metrics["tilted"]["copied"] < 0.7
    assert "learned from the biased images" in (run / "report.html").read_text(encoding="utf-8")
    with np.load(run / "samples.npz") as saved:
        assert 1 - saved["judges_agree"].mean() == pytest.approx(panel["tilted"]["disagreed"])
