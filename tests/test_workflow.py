"""The main job on a small world: what it writes, that it repeats, and that it debiases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from latentebm.debiaser import Debiaser
from latentebm.files import sha256, write_atomic
from latentebm.report.run_tables import metric_tables
from latentebm.report.words import balance, finding, headline, reliability
from latentebm.sampling import HMC, NUTS
from latentebm.sampling.named import SAMPLERS
from latentebm.settings.fields import Settings
from latentebm.settings.values import LongTail, biased_shares, parse_classes, parse_proportions, parse_target
from latentebm.workflow.judge import UnmadeError, check_made, mixed
from latentebm.workflow.problem import pose
from latentebm.workflow.run import debias, resume
from latentebm.workflow.run_figures import shares_figure

from .conftest import FAST, bars

FIGURES = {
    "counts",
    "latents",
    "prior_draws",
    "energy",
    "tilted_draws",
    "overlay",
    "shares",
    "clusters",
    "reference",
    "training",
    *(f"class_0{k}" for k in range(3)),
}


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_run_folder_is_complete(run):
    names = {p.name for p in run.iterdir()}
    assert names == {
        *("config.json", "metrics.json", "vae.safetensors", "energy.safetensors", "samples.npz"),
        *("figures", "report.html", "log.jsonl", "judge.safetensors"),
    }
    assert {p.stem for p in (run / "figures").iterdir()} == FIGURES
    with np.load(run / "samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape == (1000, 1, 8, 8)
        assert samples["images"].dtype == np.float32
        assert 0 <= samples["images"].min() <= samples["images"].max() <= 1
        assert samples["latent"].shape == (1000, 2)
        assert samples["log_weight"].shape == (1000,)
    manifest = json.loads((run / "config.json").read_text())["manifest"]
    files = ("vae.safetensors", "energy.safetensors", "samples.npz", "metrics.json", "log.jsonl", "judge.safetensors")
    assert manifest == {name: sha256(run / name) for name in files}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if "stage" in line][:4] == ["data", "vae", "classifier", "tilt"]
    steps = [line["step"] for line in lines if "energy/loss" in line]
    assert steps == sorted(set(steps)) != []
    assert metrics_of(run)["tilted"]["energy"] == "network (2 fits)"
    assert "<td>network (2 fits)</td>" in (run / "report.html").read_text(encoding="utf-8")


def test_the_page_has_one_reading_of_the_shares(run):
    """Headline, first sentence, verdict, table and figure agree, though one judge reads other shares than the mean."""
    metrics = metrics_of(run)
    shares = [metrics["panel"][side]["shares"] for side in ("untilted", "tilted")]
    assert shares[1] != metrics["tilted"]["shares"]
    pairs = [tuple(f"{100 * share:.1f}" for share in pair) for pair in zip(*shares, strict=True)]
    moved = max(pairs, key=lambda pair: abs(float(pair[1]) - float(pair[0])))
    assert f"{moved[0]} → {moved[1]} %" in headline(metrics)
    tvs = [f"{metrics['panel'][side]['tv']:.3f}" for side in ("untilted", "tilted")]
    assert f"from {tvs[0]} to {tvs[1]}" in finding(metrics)
    assert balance(metrics)[1].startswith(f"Class shares are {tvs[1]} ")
    rows = metric_tables(metrics, intervals=False)[0].rows
    assert [(row[4], row[5]) for row in rows[:3]] == [(f"{before} %", f"{after} %") for before, after in pairs]
    html = (run / "report.html").read_text(encoding="utf-8")
    assert all(f"{before} to {after} %" in html for before, after in pairs)
    figure = shares_figure(metrics)
    assert [bar.get_height() / 100 for bar in figure.axes[0].patches] == pytest.approx([*shares[0], *shares[1]])
    assert f"falls from {tvs[0]} to {tvs[1]}" in " ".join(text.get_text() for text in figure.findobj(Text))


def test_metrics_hold_what_they_promise(run):
    metrics = metrics_of(run)
    assert metrics["data"]["biased"] == [445, 243, 121]
    assert metrics["target"] == pytest.approx([1 / 3] * 3)
    assert 0.9 < metrics["classifier"]["accuracy"] <= 1
    for side in ("untilted", "tilted"):
        assert {"shares", "tv", "tv_interval", "confidence", "frechet", "density", "coverage"} <= set(metrics[side])
        assert {"tv_corrected", "kl", "l2", "absent", "precision", "recall", "by_class"} <= set(metrics[side])
        assert sum(metrics[side]["shares_corrected"]) == pytest.approx(1)
        for name in ("tv", "tv_corrected", "kl", "l2"):
            assert len(metrics[side][f"{name}_interval"]) == 2
        assert (
            np.shape(metrics[side]["shares_interval"]) == np.shape(metrics[side]["shares_corrected_interval"]) == (3, 2)
        )
    assert {"ess", "pareto_k", "log_z", "log_z_se", "heldout_gain", "reliable"} <= set(metrics["tilted"])
    stages = {k: v for k, v in metrics["seconds"].items() if k != "total"}
    assert metrics["seconds"]["total"] == pytest.approx(sum(stages.values()))


def test_the_table_of_shares_has_intervals_where_they_are_known(run):
    metrics = metrics_of(run)
    low, high = (100 * end for end in metrics["panel"]["tilted"]["shares_interval"][0])
    assert f"({low:.1f}–{high:.1f})" in metric_tables(metrics)[0].rows[0][5]
    assert "(" not in str(metric_tables(metrics, intervals=False)[0].rows)
    del metrics["panel"]
    for side in ("untilted", "tilted"):  # as runs of earlier versions are
        metrics[side] = {k: v for k, v in metrics[side].items() if not k.endswith("_interval")}
    assert "(" not in str(metric_tables(metrics)[0].rows)


def test_the_tilt_debiases(run):
    metrics = metrics_of(run)
    assert metrics["tilted"]["tv"] < 0.6 * metrics["untilted"]["tv"]
    assert metrics["tilted"]["heldout_gain"] > 0
    assert metrics["tilted"]["reliable"]


def test_the_same_seed_gives_the_same_metrics(run, fast_settings, tmp_path):
    again = debias(Settings(**fast_settings, out=str(tmp_path / "again"))).folder
    first, second = metrics_of(run), metrics_of(again)
    first.pop("seconds"), second.pop("seconds")
    assert first == second
    assert sha256(run / "samples.npz") == sha256(again / "samples.npz")
    data, short = bars(300, 0), {"width": 16, "epochs": 1, "folds": 2, "tilt_steps": 20, "pool": 1000}
    fits = [Debiaser(**short, seed=seed).fit(data.images, data.images[:20]) for seed in (0, 0, 1)]
    codes = [fit.sample(5).latent for fit in fits]
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


def test_a_loaded_run_draws_what_the_run_drew(run):
    model = Debiaser.load(run)
    with np.load(run / "samples.npz") as samples:
        draws = model.sample(1000)
        np.testing.assert_array_equal(samples["images"], draws.x.numpy())
        np.testing.assert_allclose(samples["log_weight"], -model.tilt().energy(draws.latent), atol=1e-5)
    assert not torch.equal(model.sample(10, seed=5).latent, model.sample(10, seed=6).latent)


def test_tampered_weights_are_refused(run, tmp_path):
    for name in ("config.json", "vae.safetensors", "energy.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    data = bytearray((tmp_path / "energy.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "energy.safetensors").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"energy\.safetensors as it was written"):
        Debiaser.load(tmp_path)


def test_langevin_agrees_with_snis(run):
    model = Debiaser.load(run)
    snis = model.sample(4000).latent
    model.set_params(sampler="langevin")
    draws = model.sample(4000)
    assert draws.diagnostics["acceptance"] > 0.4
    # Two independent samples of 4,000: Kolmogorov-Smirnov at α = 1e-6 on each coordinate.
    for k in range(2):
        a, b = snis[:, k].sort().values, draws.latent[:, k].sort().values
        grid = torch.cat([a, b])
        gap = (torch.searchsorted(a, grid, right=True) - torch.searchsorted(b, grid, right=True)).abs().max() / 4000
        assert gap < 2.69 * (2 / 4000) ** 0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("space", ["latent", "data"])
def test_every_sampler_draws_from_a_run(space, sampler, run, data_run):
    quick = {"hmc": HMC(chains=2, warm_up=50), "nuts": NUTS(chains=2, warm_up=50)}
    model = Debiaser.load(run if space == "latent" else data_run).set_params(langevin_steps=60)
    exact = model.sample(4000).log_weight
    draws = model.set_params(sampler=quick.get(sampler, sampler)).check().sample(300)
    assert draws.diagnostics["sampler"] == {"langevin": "mala", "auto": "snis"}.get(sampler, sampler)
    assert (draws.x.shape, draws.latent.shape) == ((300, 1, 8, 8), (300, 2))
    if space == "latent" or sampler not in (
        "hmc",
        "nuts",
    ):  # two short chains don't cross between the bars' modes there
        # Within α = 1e-6 of the mean of importance resampling, for as many draws as the chains are worth.
        sd = float(exact.std()) * (1 / draws.diagnostics.get("ess_bulk", 300) + 1 / 4000) ** 0.5
        assert float(draws.log_weight.mean()) == pytest.approx(float(exact.mean()), abs=4.9 * sd)


def test_runs_of_long_chains_report_their_agreement(fast_settings, tmp_path):
    settings = Settings(**{**fast_settings, "sampler": "hmc", "samples": 200}, out=str(tmp_path / "run"))
    folder = debias(settings).folder
    tilted, page = metrics_of(folder)["tilted"], (folder / "report.html").read_text(encoding="utf-8")
    assert {"acceptance", "divergences", "rhat", "ess", "pareto_k"} <= set(tilted)
    assert "largest R̂" in page
    # 50 draws a chain are too few to agree.
    assert (tilted["reliable"], "The long chains do not agree" in page) == (
        (True, False) if mixed(tilted) else (False, True)
    )
    assert not (folder / "figures" / "paths.png").exists()


def test_langevin_runs_report_weights_and_paths(quick_settings, tmp_path):
    settings = Settings(**{**quick_settings, "sampler": "langevin", "samples": 300}, out=str(tmp_path / "run"))
    folder = debias(settings).folder
    tilted = metrics_of(folder)["tilted"]
    assert {"acceptance", "ess", "pareto_k", "log_z", "log_z_se"} <= set(tilted)
    assert (folder / "figures" / "paths.png").is_file()


@pytest.fixture(scope="module")
def data_run(fast_settings, tmp_path_factory):
    settings = {**fast_settings, "space": "data", "clusters": None}
    return debias(Settings(**settings, out=str(tmp_path_factory.mktemp("runs") / "data"))).folder


def test_the_tilt_debiases_in_data_space(data_run):
    metrics = metrics_of(data_run)
    assert metrics["tilted"]["tv"] < 0.6 * metrics["untilted"]["tv"]
    assert metrics["tilted"]["reliable"]
    assert metrics["tilted"]["test_gain"] > 0.5 * metrics["tilted"]["heldout_gain"] > 0
    assert {p.stem for p in (data_run / "figures").iterdir()} == FIGURES


def test_a_loaded_data_run_draws_what_the_run_drew(data_run):
    model = Debiaser.load(data_run)
    with np.load(data_run / "samples.npz") as samples:
        draws = model.sample(1000)
        np.testing.assert_array_equal(samples["images"], draws.x.numpy())
        np.testing.assert_allclose(samples["log_weight"], -model.tilt().energy(draws.latent), atol=1e-4)


def test_raw_draws_are_judged_beside_others_of_their_kind():
    """Both with the observation noise, and pixels in [0, 1]."""
    rng = np.random.default_rng(0)
    model = Debiaser(space="data", positives="raw", likelihood="gaussian", width=16, epochs=1, folds=2, tilt_steps=5)
    model.set_params(pool=1000).fit(rng.random((64, 8, 8)), rng.random((16, 8, 8)))
    model.vae_.likelihood.log_scale.fill_(-0.7)  # wide enough to leave [0, 1]
    prior, untilted = model.sample_prior(300), model.sample(300, strength=0)
    assert prior.latent.shape == untilted.latent.shape == (300, 2)
    for x in (prior.x, untilted.x):
        assert 0 <= x.min() <= x.max() <= 1
        assert float(x.std(0).mean()) > 0.5 * float(model.vae_.likelihood.scale)


def test_raw_positives_collapse_and_say_so(data_run, tmp_path):
    """Real bars carry noise that no decoded mean has: the energy finds that, and the weights go."""
    model = Debiaser.load(data_run).set_params(positives="raw", tilt_steps=300)
    data = bars(300, 5)
    model.biased_ = data.images
    images = torch.where(torch.rand(data.images.shape, generator=torch.Generator().manual_seed(0)) < 0.2, 255, 0)
    model.fit_tilt(images.to(torch.uint8))
    assert model.heldout_gain_ > 5
    assert not model.weigh()["reliable"]
    # Noise is part of the base point, but never of the codes that are returned.
    assert model.sample(5).latent.shape == (5, 2)


def test_without_labels_the_class_part_is_left_out(tmp_path):
    data, fair = bars(600, 1), bars(60, 2)
    np.savez(tmp_path / "all.npz", images=data.images.numpy())
    np.savez(tmp_path / "fair.npz", images=fair.images.numpy())
    settings = Settings(
        **FAST, data=str(tmp_path / "all.npz"), reference=str(tmp_path / "fair.npz"), out=str(tmp_path / "run")
    )
    folder = debias(settings).folder
    metrics = metrics_of(folder)
    assert metrics["untilted"] is None
    assert "no labels" in metrics["unjudged"]
    assert metrics["tilted"]["ess"] > 0
    assert "Class shares are left out" in (folder / "report.html").read_text(encoding="utf-8")
    assert not (folder / "figures" / "shares.png").exists()


def test_own_reference_with_labels_sets_the_target(tmp_path, bars_npz):
    fair = bars(90, 3)
    keep = torch.nonzero((fair.labels != 2) | (torch.arange(90) < 45)).flatten()
    np.savez(tmp_path / "fair.npz", images=fair.images[keep].numpy(), labels=fair.labels[keep].numpy())
    settings = Settings(**FAST, data=str(bars_npz), reference=str(tmp_path / "fair.npz"), out=str(tmp_path / "run"))
    counts = torch.bincount(fair.labels[keep]).double()
    assert metrics_of(debias(settings).folder)["target"] == pytest.approx((counts / counts.sum()).tolist())


def test_collapse_is_called_unreliable(fast_settings, tmp_path):
    """A tilt forty times too strong: its weights sit on a handful of draws."""
    settings = {**fast_settings, "objective": "jensen", "energy_penalty": 0.004, "posterior": "means"}
    folder = debias(Settings(**settings, out=str(tmp_path / "run"))).folder
    assert metrics_of(folder)["tilted"]["reliable"] is False
    assert "Unreliable" in (folder / "report.html").read_text(encoding="utf-8")


def test_arrays_and_tensors_fit_alike():
    data = bars(300, 0)
    fit = Debiaser(width=16, epochs=1, folds=2, tilt_steps=20, pool=1000).fit
    assert torch.equal(
        fit(data.images, data.images[:20]).sample(5).x, fit(data.images.numpy(), data.images[:20]).sample(5).x
    )


def test_a_run_that_fails_late_keeps_its_model_and_goes_on(fast_settings, tmp_path, monkeypatch):
    short = {**fast_settings, "epochs": 60, "tilt_steps": 5}
    settings = Settings(**short, out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr("latentebm.workflow.run.render_report", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            debias(settings)
    assert [path.name for path in tmp_path.iterdir()] == [".run.unfinished"]
    kept = Debiaser.load(tmp_path / ".run.unfinished" / "new").sample(5)
    with pytest.raises(ValueError, match="out: expected no unfinished run, got one of other settings"):
        debias(Settings(**{**short, "seed": 1}, out=settings.out))
    monkeypatch.setattr("latentebm.training.fit._Run.step", lambda *_: 1 / 0)  # nothing is fitted again
    run = resume(settings.out).folder
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert torch.equal(Debiaser.load(run).sample(5).x, kept.x)


def test_atomic_write_leaves_the_old_file_on_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fails(temporary):
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(path, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("text", ["0-9,1", "7", "a,b", "0-99"])
def test_bad_classes(text):
    with pytest.raises(ValueError, match="classes: expected"):
        parse_classes(text).pick(tuple("0123456789"))


@pytest.mark.parametrize("text", [".5,.5", ".2,.3,x", ".4,.4,.4", "long-tail:no", "-1,1,1"])
def test_bad_proportions(text):
    with pytest.raises(ValueError, match="proportions: expected"):
        biased_shares(parse_proportions(text), "abc")


@pytest.mark.parametrize("text", ["a:.5,z:.5", "a:.5,a:.5", "a:.5", "even", ".5,.6"])
def test_bad_targets(text):
    with pytest.raises(ValueError, match="target: expected"):
        parse_target(text).of(("a", "b"))


def test_long_tail_has_its_ratio():
    shares = LongTail(50).of("0123456789")
    assert shares[0] / shares[-1] == pytest.approx(50)
    assert sum(shares) == pytest.approx(1)


def test_long_tails_are_over_all_classes_and_targets_go_by_number():
    problem = pose(Settings(proportions="long-tail:50"), torch.Generator().manual_seed(0))
    assert len(problem.classes) == 10
    assert parse_target("0:.5, 1:.5").of(("0 - zero", "1 - one", "2 - two")) == [0.5, 0.5, 0.0]


def test_a_class_that_the_generator_never_makes_is_refused_before_the_tilt(fast_settings, tmp_path, monkeypatch):
    thin = {"proportions": ".6,.398,.002", "learn_from": "biased"}
    rare = Settings(**{**fast_settings, **thin}, out=str(tmp_path / "run"))
    fit_tilt = Debiaser.fit_tilt
    monkeypatch.setattr(Debiaser, "fit_tilt", lambda *_, **__: 1 / 0)
    with pytest.raises(UnmadeError) as refused:
        debias(rare)
    assert "got 0 of 10,000 untilted draws in each of: 2; train the generator" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == [".run.unfinished"]
    kept = Debiaser.load(tmp_path / ".run.unfinished" / "new")
    assert torch.equal(kept.sample_prior(5).x, refused.value.model.sample_prior(5).x)
    # Its model is not lost, and a judge that does not know the class itself cannot say so.
    problem = pose(rare, torch.Generator().manual_seed(0))
    check_made(problem, Blind(), refused.value.model)
    assert fit_tilt(refused.value.model, problem.reference.images).sample(5).x.shape == (5, 1, 8, 8)


class Blind(torch.nn.Linear):
    """A judge that takes everything for class 0."""

    def __init__(self):
        super().__init__(1, 1)

    def embed(self, x):
        return x

    def probabilities(self, features):
        return torch.eye(3)[torch.zeros(len(features), dtype=torch.long)]


def test_a_class_that_the_generator_never_makes_is_said():
    line = reliability({"tilted": {"reliable": False, "unmade": ["seven"]}})
    assert line.startswith("The model never produced seven, so reweighting")
