"""A finished run opened again: its model, the data it was cut from, and the judge it had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.debiaser import Debiaser
from latentebm.disk.manifest import as_written, load_config
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.metrics import Judgement, judge
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.settings.fields import Settings
from latentebm.workflow.judge import JUDGE, fit_judge
from latentebm.workflow.problem import Problem, pose

__all__ = ["PANELS", "OpenRun", "judged_run", "pose_again", "reopen"]

# What studies draw of their tables: a column and its label for each panel.
PANELS = {"tv": "total variation to target", "frechet": "Fréchet distance", "coverage": "coverage", "ess": "ESS"}


@dataclass(frozen=True)
class OpenRun:
    """What further studies of a run need."""

    model: Debiaser  # with the biased images, as a fit leaves it
    problem: Problem  # the arrays, cut as they were
    classifier: Classifier  # the judge it had
    seed: int

    def judge(self, images: Tensor) -> Judgement:
        """Judge images (N, C, H, W) in [0, 1] against the run's target."""
        p, rng = self.problem, torch.Generator().manual_seed(self.seed)
        real = p.real.float01().to(images.device) if p.real is not None else images
        return judge(images, real, self.classifier, p.classes, p.target, generator=rng)


def reopen(run: Path | str, *, device: str = "auto", track: Track = silent) -> OpenRun:
    """Open a folder that `debias` wrote for further study; its data must be where its settings say, and have labels.

    Example:
        >>> reopen("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: run: expected config.json in nowhere, found none; pass a run folder
    """
    return judged_run(run, *pose_again(run, device=device), track=track)


def pose_again(run: Path | str, *, device: str = "auto") -> tuple[Debiaser, Problem, torch.Generator]:
    """A run's model, the arrays cut as they were, and the stream its judge is trained from."""
    model = Debiaser.load(run, device=device)
    config = load_config(run)
    if "settings" not in config:
        raise fail("run", "a folder written by latentebm debias", "a model saved alone", "run latentebm debias first")
    with as_written(Path(run) / "config.json"):
        settings = Settings(**config["settings"])
    rng = torch.Generator().manual_seed(settings.seed)
    problem = pose(settings, rng)
    if problem.unjudged:
        raise fail("run", "labels to judge class shares by", problem.unjudged, "run it on labelled data")
    model.biased_ = problem.biased.part(stream(model.seed, 7)).images
    return model, problem, rng


def judged_run(
    run: Path | str, model: Debiaser, problem: Problem, generator: torch.Generator, *, track: Track = silent
) -> OpenRun:
    """An open run of what `pose_again` gave, with its judge; a run that kept none has it trained as it was."""
    seed, device = generator.initial_seed(), next(model.vae_.parameters()).device
    if JUDGE in load_config(run)["manifest"]:
        return OpenRun(model, problem, Classifier.load(Path(run) / JUDGE).to(device), seed)
    classifier = fit_judge(problem, generator, device, track)
    if classifier is None:
        raise fail("problem", "labels to judge class shares by", problem.unjudged, "pose it on labelled data")
    return OpenRun(model, problem, classifier, seed)
