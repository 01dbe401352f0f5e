"""The command line: what it answers, and that a mistake costs nothing but its message."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from latentebm.cli.app import app, main
from latentebm.debiaser import Debiaser
from latentebm.disk.manifest import add_files
from latentebm.settings.config import read_config
from latentebm.settings.declaration import settings_of
from latentebm.settings.fields import Settings
from latentebm.training.fit import DivergedError

from .conftest import bars


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def options(settings):
    return [part for k, v in settings.items() for part in (f"--{k.replace('_', '-')}", v)]


def test_help_teaches_by_example():
    text = call("debias", "--help").output
    assert "latentebm debias --latent-dim 10" in text
    assert all(f"--{s.name.replace('_', '-')}" in text for s in settings_of(Settings) if s.panel)


def test_a_run_from_the_shell(fast_settings, tmp_path):
    out = tmp_path / "run"
    result = call("debias", *options(fast_settings), "--out", out)
    assert result.exit_code == 0, result.output
    for text in ("Class shares", "untilted", "tilted", "report.html", "webbrowser"):
        assert text in result.output
    assert call("debias", *options(fast_settings), "--out", out).exit_code == 2
    config = call("debias", "--config", out / "config.json", "--tilt-steps", 5, "--out", tmp_path / "again")
    assert config.exit_code == 0, config.output
    settings = json.loads((tmp_path / "again" / "config.json").read_text())["settings"]
    assert (settings["tilt_steps"], settings["width"]) == (5, fast_settings["width"])


def test_sample_and_report(run, tmp_path):
    assert call("sample", run, "-n", 7, "--out", tmp_path / "x.npz").exit_code == 0
    with np.load(tmp_path / "x.npz") as saved:
        assert saved["images"].shape == (7, 1, 8, 8)
    assert call("sample", run, "--out", tmp_path / "x.npz").exit_code == 2
    for sampler in ("mala", "nuts"):
        assert call("sample", run, "-n", 7, "--sampler", sampler, "--out", tmp_path / f"{sampler}.npz").exit_code == 0
    before = (run / "report.html").read_text(encoding="utf-8")
    assert call("report", run).exit_code == 0
    assert (run / "report.html").read_text(encoding="utf-8") == before
    assert before.count("data:image/png;base64,") == len(list((run / "figures").iterdir()))
    assert 'src="http' not in before


def test_samples_are_refused_before_they_are_drawn(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Debiaser, "sample", lambda *_, **__: 1 / 0)
    for words, message in (
        (("--out", tmp_path / "x.txt"), "out: expected a name ending in .npz"),
        (("--sampler", "gibbs", "--out", tmp_path / "x.npz"), "sampler: expected one of snis"),
    ):
        result = call("sample", run, *words)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())


def test_names_from_outside_are_escaped(run, tmp_path):
    """A class named like markup must stay text in the page."""
    for name in ("config.json", "metrics.json", "vae.safetensors", "energy.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = (run / "metrics.json").read_text()
    metrics = json.loads(text)
    metrics["data"]["class_names"][0] = "<script>alert(1)</script>"
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert call("report", tmp_path).exit_code == 2  # edited
    add_files(tmp_path, ["metrics.json"])
    assert call("report", tmp_path).exit_code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


@pytest.fixture
def files(tmp_path):
    data = bars(30, 0)
    images, labels = data.images[:, 0].numpy(), data.labels.numpy()
    holed = np.full((3, 4, 4), np.nan)
    for name, arrays in {
        "good": {"images": images, "labels": labels},
        "flat": {"images": images.reshape(30, 64)},
        "wide": {"images": images.astype(np.int32)},
        "bright": {"images": images.astype(np.float32)},
        "holed": {"images": holed},
        "short": {"images": images, "labels": labels[:5]},
        "negative": {"images": images, "labels": labels - 1},
        "unlabelled": {"images": images},
        "none": {"images": images[:0]},
        "one": {"images": images[:1]},
        "small": {"images": images[:, :4]},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "bad.toml").write_text("latent_dim = ")
    (tmp_path / "odd.toml").write_text("latent_size = 3")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diary.txt").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data absent.npz", "data: expected a file"),
        ("--data flat.npz", "shape (N, H, W)"),
        ("--data wide.npz", "uint8, or float"),
        ("--data bright.npz", "floats in [0, 1]"),
        ("--data holed.npz", "finite pixels"),
        ("--data short.npz", "one per image"),
        ("--data negative.npz", "whole numbers"),
        ("--data unlabelled.npz", "reference: expected unbiased images"),
        ("--data good.npz --reference none.npz", "at least 2 images, got 0"),
        ("--data good.npz --reference one.npz", "at least 2 images, got 1"),
        ("--data good.npz --reference small.npz", "images of the data's shape"),
        ("--data good.npz --reference absent.npz", "reference: expected a file"),
        ("--data good.npz --reference good.npz --proportions .3,.3,.4", "--proportions: expected no reference"),
        ("--data good.npz --reference good.npz --biased-fraction .5", "--biased-fraction: expected no reference"),
        (
            "--data unlabelled.npz --reference good.npz --target .3,.3,.4",
            "--target: expected None, since the data have no",
        ),
        (
            "--data unlabelled.npz --reference good.npz --classes 0-1",
            "--classes: expected None, since the data have no",
        ),
        ("--samples 5 --reference-per-class 10", "samples: expected a whole number of at least 6"),
        ("--data good.npz --classes 0-7", "classes: expected"),
        ("--data good.npz", "proportions: expected 3 shares"),
        ("--data good.npz --proportions .5,.5", "proportions: expected 3 shares"),
        ("--data good.npz --proportions .5,.5,.5", "sum to 1"),
        ("--data good.npz --proportions .98,.01,.01 --biased-fraction 1", "at most"),
        ("--data good.npz --proportions .3,.3,.4 --reference-per-class 500", "--reference-per-class: expected"),
        ("--target 0:.5,9:.5", "target: expected"),
        ("--objective gan", "objective: expected one of likelihood, jensen, nce, contrastive, score, amortized"),
        ("--sampler gibbs", "sampler: expected one of snis, langevin, mala, pmc, hmc, nuts, auto"),
        ("--space pixel", "space: expected one of latent, data"),
        ("--space data --positives cooked", "positives: expected one of reconstructed, raw"),
        ("--positives raw", "--positives: expected reconstructed unless --space data"),
        ("--space data --clusters 5", "--clusters: expected None unless --space latent"),
        ("--objective contrastive --negatives noise", "negatives: expected one of persistent, prior"),
        ("--space data --objective score", "--space: expected latent with --objective score"),
        ("--posterior means --objective score", "--posterior: expected draws with --objective score"),
        ("--negatives prior", "--negatives: expected persistent unless --objective contrastive"),
        ("--calibrate", "--calibrate: expected False unless --objective jensen"),
        ("--energy-penalty .1", "--energy-penalty: expected 0.25 unless --objective jensen"),
        ("--folds 0", "folds: expected"),
        ("--pool 0", "pool: expected"),
        ("--network transformer", "network: expected"),
        ("--posterior modes", "posterior: expected"),
        ("--latent-dim 0", "--latent-dim: expected"),
        ("--epochs 0", "epochs: expected"),
        ("--samples 0", "samples: expected"),
        ("--seed -1", "seed: expected"),
        ("--objective jensen --energy-penalty 0", "--energy-penalty: expected"),
        ("--energy-penalty 0", "--energy-penalty: expected"),
        ("--gradient-penalty -1", "--gradient-penalty: expected"),
        ("--langevin-steps 0", "--langevin-steps: expected"),
        ("--tilt-steps 0", "--tilt-steps: expected"),
        ("--target a:.5", "--target: expected shares that sum to 1"),
        ("--proportions long-tail:x", "--proportions: expected a number"),
        ("--reference-per-class 0", "--reference-per-class: expected"),
        ("--kl-weight nan", "--kl-weight: expected"),
        ("--biased-fraction 1.5", "--biased-fraction: expected"),
        ("--device tpu", "device: expected auto, cpu, cuda"),
        ("--device cuda", "device: expected a device of this machine"),
        ("--out run", "out: expected a folder that does not exist yet"),
        ("--out run --overwrite", "out: expected an earlier run to overwrite"),
        ("--out good.npz", "out: expected a folder"),
        ("--config absent.toml", "config: expected a file"),
        ("--config bad.toml", "config: expected valid TOML"),
        ("--config odd.toml", "latent_size"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(files, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = sorted(p.name for p in files.rglob("*"))
    result = call("debias", *arguments.split())
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "; " in result.stderr  # the fix
    assert sorted(p.name for p in files.rglob("*")) == before


def test_a_fit_that_diverges_ends_in_one_line(monkeypatch):
    def diverge(*_, **__):
        raise DivergedError("loss: expected a finite value, got nan by step 3; lower the learning rate")

    monkeypatch.setattr("latentebm.workflow.run.debias", diverge)
    result = call("debias")
    assert result.exit_code == 1
    assert result.stderr.split("\n")[-2].startswith("Error: loss: expected a finite value, got nan by step 3")


def test_commands_on_a_folder_that_is_no_run(tmp_path):
    for command in ("sample", "report"):
        result = call(command, tmp_path)
        assert result.exit_code == 2
        assert "pass a run folder" in result.stderr


def test_config_files_in_both_forms(tmp_path):
    (tmp_path / "a.toml").write_text('latent_dim = 3\nobjective = "jensen"')
    (tmp_path / "a.json").write_text('{"latent_dim": 3, "objective": "jensen"}')
    assert read_config(tmp_path / "a.toml") == read_config(tmp_path / "a.json")


@pytest.mark.parametrize(("asked", "kept"), [("/proc/none", None), ("{}/made", "{}/made"), ("", "")])
def test_a_compilers_cache_that_cannot_be_written_is_not_asked_for(tmp_path, monkeypatch, asked, kept):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", asked.format(tmp_path))
    monkeypatch.setattr("sys.argv", ["latentebm", "--version"])
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (kept if kept is None else kept.format(tmp_path))
