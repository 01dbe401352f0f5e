"""The main job on real MNIST, shortened: the tilt must balance digits that it never saw the labels of."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def metrics(mnist_run):
    return json.loads((mnist_run / "metrics.json").read_text(encoding="utf-8"))


def test_digits_are_balanced(metrics):
    assert metrics["untilted"]["tv"] > 0.15
    assert metrics["tilted"]["tv"] < 0.5 * metrics["untilted"]["tv"]
    assert metrics["tilted"]["frechet"] < metrics["untilted"]["frechet"]


def test_the_weights_are_healthy(metrics):
    assert metrics["tilted"]["ess"] > 0.2
    assert metrics["tilted"]["pareto_k"] < 0.7
    assert metrics["tilted"]["heldout_gain"] > 0.1


def test_the_judge_is_good(metrics):
    assert metrics["classifier"]["accuracy"] > 0.98
    assert metrics["data"]["biased_total"] == 18_353
