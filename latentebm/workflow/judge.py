"""The numbers of a run: ``metrics.json`` before its times are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.chunks import in_chunks
from latentebm.data.images import Images
from latentebm.debiaser import Debiaser
from latentebm.evaluation.judges import Classifier, fit_classifier
from latentebm.evaluation.metrics import Judgement, judge
from latentebm.evaluation.shares import confusion_rates
from latentebm.models.energies import EnsembleEnergy
from latentebm.models.mixture_energy import MixtureEnergy
from latentebm.progress import Track, silent
from latentebm.sampling import Draws
from latentebm.workflow.problem import Problem

__all__ = [
    "JUDGE",
    "UnmadeError",
    "Verdict",
    "accuracy",
    "check_made",
    "fit_judge",
    "generator_metrics",
    "judge_draws",
    "mixed",
    "run_metrics",
]

JUDGE = "judge.safetensors"  # in the run folder
AGREED = 1.05  # R̂ of long chains below which they have seen the same distribution
POOL = 10_000  # untilted draws without a class that say the generator never produces it
KNOWN = 0.5  # share of a class's real images that the classifier must know to say so


class UnmadeError(ValueError):
    """A wanted class that the generator never produced, so that reweighting cannot add it.

    Attributes:
        model: the debiaser with its trained generator, ready for ``fit_tilt`` towards what it does make.

    Example:
        >>> str(UnmadeError(["7"], Debiaser())).partition(";")[0]
        'target: expected classes that the generator produces, got 0 of 10,000 untilted draws in each of: 7'
    """

    def __init__(self, names: list[str], model: Debiaser) -> None:
        got = f"0 of {POOL:,} untilted draws in each of: {', '.join(names)}"
        fix = "train the generator longer or with more of them, or leave them out (the error's .model holds it)"
        super().__init__(str(fail("target", "classes that the generator produces", got, fix)))
        self.model = model


@dataclass(frozen=True)
class Verdict:
    """What the evaluation classifier says of the draws before and after the tilt, and how good it is.

    Attributes:
        accuracy: of the classifier on its test images.
        before: judgement of untilted draws.
        after: judgement of tilted draws.
    """

    accuracy: float
    before: Judgement
    after: Judgement


def fit_judge(
    problem: Problem, generator: torch.Generator, device: torch.device, track: Track = silent
) -> Classifier | None:
    """Train the evaluation classifier, or return None where there are no data for it.

    Small data get more epochs, so that it sees some 120,000 images whatever their number.

    Example:
        >>> empty = Images(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))
        >>> fit_judge(Problem(empty, empty, unjudged="no labels"), torch.Generator(), torch.device("cpu")) is None
        True
    """
    if problem.judge_train is None or problem.unjudged:
        return None
    epochs = min(20, max(2, round(120_000 / len(problem.judge_train))))
    return fit_classifier(problem.judge_train, epochs=epochs, generator=generator, device=device, track=track)


def check_made(problem: Problem, classifier: Classifier | None, model: Debiaser) -> None:
    """Refuse a target with a class that untilted draws never show, before a tilt is fitted to it.

    A class whose real images the classifier itself does not know is let through: its absence would say nothing.

    Raises:
        UnmadeError: the classifier reads none of 10,000 untilted draws as a wanted class; a ValueError.

    Example:
        >>> empty = Images(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))
        >>> check_made(Problem(empty, empty), None, Debiaser())
    """
    if classifier is None or problem.judge_test is None:
        return
    read, labels = _read(classifier, problem.judge_test)
    wanted = dict(zip(problem.classes, problem.class_names, strict=True))
    for k, share in zip(problem.classes, problem.target, strict=True):
        if share == 0 or not (read[labels == k] == k).double().mean() >= KNOWN:
            del wanted[k]
    for part in model.sample_prior(POOL).x.split(1000):  # usually the first part holds them all
        if not wanted:
            return
        for k in classifier.probabilities(classifier.embed(part)).argmax(1).unique().tolist():
            wanted.pop(k, None)
    if wanted:
        raise UnmadeError(list(wanted.values()), model)


def accuracy(classifier: Classifier, labelled: Images) -> float:
    """Share of labelled images that the classifier gets right.

    Raises:
        ValueError: the images have no labels.

    Example:
        >>> labelled = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), ("a",))
        >>> accuracy(Classifier((1, 8, 8), 1), labelled)
        1.0
    """
    read, labels = _read(classifier, labelled)
    return float((read == labels).double().mean())


def _read(classifier: Classifier, labelled: Images) -> tuple[Tensor, Tensor]:
    """What the classifier takes labelled images for, and what they are."""
    if labelled.labels is None:
        raise fail("labelled", "images with labels", "None", "pass labelled images")
    device = next(classifier.parameters()).device
    return classifier.probabilities(classifier.embed(labelled.float01().to(device))).argmax(1).cpu(), labelled.labels


def generator_metrics(problem: Problem, model: Debiaser, generator: torch.Generator) -> dict[str, Any]:
    """Training and held-out −ELBO in nats: held out over test images in the biased and in the target's shares."""
    metrics: dict[str, Any] = {
        "sources": model.sources_.as_dict(),
        "prior_components": model.vae_.config["components"],
        "parameters": sum(p.numel() for p in model.vae_.parameters()),
        "train_loss": model.vae_log_.losses[-1],
        "heldout_loss": None,
        "heldout_loss_target": None,
    }
    if problem.judge_test is None or problem.judge_test.labels is None or not problem.classes:
        return metrics
    rows = torch.isin(problem.judge_test.labels, torch.tensor(problem.classes))
    known = problem.judge_test[torch.nonzero(rows).flatten()]
    device = next(model.vae_.parameters()).device
    with torch.no_grad():
        loss = in_chunks(lambda x: model.vae_.loss(x.to(device), generator=generator).cpu(), known.float01())
    labels = known.labels if known.labels is not None else torch.empty(0)
    by_class = torch.stack([loss[labels == k].mean() for k in problem.classes])
    counts = torch.tensor(problem.counts(problem.biased), dtype=torch.float32)
    metrics["heldout_loss"] = float((by_class * counts / counts.sum()).sum())
    metrics["heldout_loss_target"] = float((by_class * torch.tensor(problem.target)).sum())
    return metrics


def mixed(diagnostics: dict[str, Any]) -> bool:
    """Whether a sampler's few long chains agree, R̂ below 1.05; of one chain per draw nothing is asked.

    References:
        Rank-Normalization, Folding, and Localization: An Improved R̂ (Vehtari et al., 2021),
        https://arxiv.org/abs/1903.08008

    Example:
        >>> mixed({"chains": 4, "rhat": 1.7}), mixed({"rhat": 1.7}), mixed({})
        (False, True, True)
    """
    rhat = diagnostics.get("rhat")
    return "chains" not in diagnostics or (rhat is not None and bool(rhat < AGREED))


def run_metrics(
    problem: Problem, model: Debiaser, tilted: Draws, verdict: Verdict | None, generator: torch.Generator
) -> dict[str, Any]:
    """All numbers of a run but its times."""
    before = {} if verdict is None else verdict.before.as_dict()
    after = {} if verdict is None else verdict.after.as_dict()
    # Chains know nothing of weights; the pool's diagnostics speak of the tilt itself, whatever drew from it.
    weights = {**model.weigh(), **tilted.diagnostics}
    # Reweighting cannot add a class: one without any draw stays without.
    shares = zip(problem.class_names, problem.target, before.get("shares", []), strict=False)
    weights["unmade"] = [name for name, wanted, share in shares if wanted > 0 and share == 0]
    weights["mixed"] = mixed(tilted.diagnostics)
    weights["reliable"] = weights["reliable"] and weights["mixed"] and not weights["unmade"]
    return {
        "judged": verdict is not None,
        "unjudged": problem.unjudged,
        "samples": len(tilted),
        "data": {
            "class_names": list(problem.class_names),
            "biased": problem.counts(problem.biased) if problem.classes else None,
            "reference": problem.counts(problem.reference) if problem.classes else None,
            "biased_total": len(problem.biased),
            "reference_total": len(problem.reference),
        },
        "target": list(problem.target) or None,
        "classifier": None if verdict is None else {"accuracy": verdict.accuracy},
        "generator": generator_metrics(problem, model, generator),
        "untilted": before or None,
        "tilted": {
            **after,
            **weights,
            "energy": _kind(model.energy_),
            "heldout_gain": model.heldout_gain_,
            "test_gain": None if problem.real is None or len(problem.real) < 2 else model.gain(problem.real.images),
        },
    }


def _kind(energy: EnsembleEnergy) -> str:
    """What the energy is, in words."""
    if isinstance(energy, MixtureEnergy):
        return f"shares of the prior's {energy.config['components']} normals ({energy.n_members} fits)"
    return f"network ({energy.n_members} fits)"


def judge_draws(
    problem: Problem,
    classifier: Classifier | None,
    prior: Tensor,
    tilted: Tensor,
    generator: torch.Generator,
    track: Track = silent,
) -> Verdict | None:
    """Judge draws before and after, or return None where there is no evaluation classifier.

    Example:
        >>> empty = Images(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))
        >>> judge_draws(Problem(empty, empty), None, torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), torch.Generator())
    """
    if classifier is None or problem.real is None or problem.judge_test is None:
        return None
    real, (read, labels) = problem.real.float01().to(prior.device), _read(classifier, problem.judge_test)
    rates = confusion_rates(read, labels, classifier.head.out_features)
    before, after = (
        judge(x, real, classifier, problem.classes, problem.target, confusion=rates, generator=generator, track=track)
        for x in (prior, tilted)
    )
    return Verdict(float((read == labels).double().mean()), before, after)
