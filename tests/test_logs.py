"""One callback through every fit, one file of lines as a run goes, and bars that end at what was done."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from latentebm.cli import console
from latentebm.data.batches import Minibatches
from latentebm.debiaser import Debiaser
from latentebm.disk.checkpoint import checkpoints
from latentebm.ebm.score import ScoreRecipe, fit_score
from latentebm.models.energies import EnergyNet
from latentebm.tables.census import synthetic_census
from latentebm.tables.table_debiaser import TableDebiaser
from latentebm.training.fit import fit
from latentebm.training.logs import LogFile, event_files, logged
from latentebm.training.optimisation import Optimisation


class Seen:
    """Keeps what it is called with."""

    def __init__(self):
        self.lines = []

    def __call__(self, step, values):
        self.lines.append((step, values))

    def fits(self):
        return {key.partition("/")[0] for _, values in self.lines for key in values}


def net():
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight), nn.init.zeros_(module.bias)
    return module


def work(stop=0, log=None, patience=None):
    """A fit of 40 steps, logged every 5; it fails at step `stop`."""
    module, rng, taken = net(), torch.Generator().manual_seed(0), []
    batches = Minibatches(torch.arange(8.0).view(8, 1), batch_size=2, epochs=10, generator=rng)

    def loss(batch):
        taken.append(1)
        if len(taken) == stop:
            raise ZeroDivisionError
        return (module(batch[0]) - 3).square().mean()

    known = {"every": 5, "validate": lambda: module.bias.sum(), "patience": patience, "state": [rng], "log": log}
    return fit(module, loss, batches, Optimisation(lr=0.01), **known)


def test_the_log_has_the_losses_and_scores_of_the_record():
    log = Seen()
    result = work(log=log)
    assert [values["fit/loss"] for _, values in log.lines[1:]] == result.losses
    assert [values["fit/score"] for _, values in log.lines] == [float(score) for score in result.scores]
    assert [step for step, _ in log.lines] == [*range(0, 41, 5)]


def test_a_killed_and_resumed_fit_writes_no_step_twice(tmp_path):
    """Killed between two checkpoints, with half a line at the end of the file; the events are those of one run."""
    path, whole = tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    with logged(LogFile(whole)):
        work()
    with pytest.raises(ZeroDivisionError), checkpoints(tmp_path / "kept", every=1e9), logged(LogFile(path)):
        work(stop=23)
    with path.open("a") as stream:
        stream.write('{"step": 2')
    events = Seen()
    with checkpoints(tmp_path / "kept"), logged(LogFile(path, [events])):
        work()
    assert path.read_text() == whole.read_text()
    assert [step for step, _ in events.lines] == [25, 30, 35, 40]


def test_second_fits_of_a_name_are_numbered():
    log = Seen()
    with logged(log):
        work(), work()
    assert log.fits() == {"fit", "fit 2"}


def test_every_fit_of_the_package_logs():
    rng, log = torch.Generator().manual_seed(0), Seen()
    images = torch.rand(32, 8, 8, generator=rng)
    Debiaser(width=16, epochs=1, folds=2, tilt_steps=25, clusters=0, pool=500).fit(images, images[:9], log=log)
    assert log.fits() == {"VAE", "energy"}
    log = Seen()
    TableDebiaser(steps=5, width=8, pool=500).fit(synthetic_census(100, seed=0), synthetic_census(60, seed=1), log=log)
    assert log.fits() == {"rows", "energy"}
    log = Seen()
    fit_score(
        EnergyNet(2, members=1),
        torch.randn(64, 2, generator=rng),
        ScoreRecipe(steps=3, sigma=0.1),
        generator=rng,
        log=log,
    )
    assert log.fits() == {"score"}


def test_event_files_hold_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    event_files(tmp_path)(25, {"VAE/loss": 0.5})
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("VAE/loss")] == [(25, 0.5)]


def test_a_bar_of_an_early_stop_ends_at_what_was_done(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(console, "errors", screen)
    with console.bars() as track:
        for item in track(range(1500), "energy"):
            if item == 298:
                break
    last = screen.file.getvalue().rpartition("energy")[2]
    assert "299/299" in last
    assert "stopped early" in last


def test_the_pool_grows_with_the_draws():
    """A million draws of a pool of a million would be one half distinct."""
    from latentebm.choices import chosen_sampler

    assert chosen_sampler(Debiaser(), 10_000).pool == 1_000_000
    assert chosen_sampler(Debiaser(), 1_000_000).pool == 10_000_000
    assert chosen_sampler(Debiaser(pool=500), 1_000_000).pool == 500


def test_saved_draws_hold_their_diagnostics(tmp_path):
    from latentebm.sampling import Draws
    from latentebm.workflow.run import save_samples

    draws = Draws(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3), torch.zeros(2), {"ess": 0.5, "pareto_k": float("nan")})
    with np.load(save_samples(tmp_path / "x.npz", draws)) as saved:
        assert json.loads(str(saved["diagnostics"])) == {"ess": 0.5, "pareto_k": None}
