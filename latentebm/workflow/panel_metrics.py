"""What several judges, and measures that need none, say of a run's draws; and how many of these are copies."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from latentebm.debiaser import Debiaser
from latentebm.evaluation.fidelity import copied_share, frechet_distance
from latentebm.evaluation.fixed_features import fixed_features
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.panel import Panel, fit_panel
from latentebm.evaluation.panel_shares import panel_shares
from latentebm.progress import Track, silent
from latentebm.rng import permutation, stream
from latentebm.sampling.diagnostics import agreement
from latentebm.workflow.data_notes import data_notes
from latentebm.workflow.problem import Problem

__all__ = ["add_panel", "copied", "panel_metrics", "train_panel"]

TESTED, PERMUTATIONS = 500, 199  # images of each side of the two-sample test, and its permutations
COPIES = 5_000  # reference images that draws are held against


def add_panel(
    metrics: dict[str, Any],
    problem: Problem,
    classifier: Classifier | None,
    model: Debiaser,
    untilted: Tensor,
    tilted: Tensor,
    track: Track = silent,
) -> Tensor | None:
    """Add the panel's reading, the copies and the notes to a run's metrics.

    Returns:
        For each tilted draw, whether all judges of real images read it alike, (n,); None without a panel.
    """
    panel = train_panel(problem, classifier, model, track)
    metrics["panel"], alike = panel_metrics(problem, panel, model, untilted, tilted)
    metrics["notes"] = data_notes(problem)
    for side, x in (("untilted", untilted), ("tilted", tilted)):
        if metrics[side] is not None:
            metrics[side]["copied"] = copied(problem, x, classifier, stream(model.seed, 13))
    return alike


def train_panel(
    problem: Problem, classifier: Classifier | None, model: Debiaser, track: Track = silent
) -> Panel | None:
    """Train the other judges, or return None where there is no classifier to begin with.

    Example:
        >>> from latentebm.data.images import Images
        >>> empty = Images(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))
        >>> train_panel(Problem(empty, empty), None, Debiaser()) is None
        True
    """
    if classifier is None or problem.judge_train is None:
        return None
    rng = stream(model.seed, 9)
    return fit_panel(classifier, problem.judge_train.part(rng), _reconstruction(model), generator=rng, track=track)


def panel_metrics(
    problem: Problem, panel: Panel | None, model: Debiaser, untilted: Tensor, tilted: Tensor
) -> tuple[dict[str, Any] | None, Tensor | None]:
    """The panel's reading of draws, with real images and their reconstructions as controls.

    Returns:
        Plain values for ``metrics.json`` and, for each tilted draw, whether all strangers read it alike, (n,); None
        for both without a panel.
    """
    if panel is None or problem.real is None or problem.judge_test is None:
        return None, None
    rng, real = stream(model.seed, 10), problem.real.float01().to(untilted.device)
    sides = {"untilted": untilted, "tilted": tilted, "real": real, "reconstructed": _reconstruction(model)(real)}
    found: dict[str, Any] = {"accuracy": _accuracy(panel, problem)}
    held = fixed_features(real)
    for name, x in sides.items():
        seen, meant = panel.read(x)
        shares = panel_shares(seen, meant, list(panel.strangers), problem.classes, problem.target, generator=rng)
        found[name] = {**asdict(shares), "fixed_features": _without_judge(fixed_features(x), held, name, rng)}
        if name == "tilted":
            alike = (seen == seen[0]).all(0)
    return found, alike


def copied(problem: Problem, x: Tensor, classifier: Classifier | None, generator: torch.Generator) -> float | None:
    """Share of draws (n, C, H, W) nearer to a reference image than to any of as many held-out real images.

    Without labelled images held out, the biased images, which the generator was trained on, stand in for these; then
    fixed features stand in for the classifier's. None where there are fewer than two of them.

    Example:
        >>> from latentebm.data.images import Images
        >>> some = Images(torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8))
        >>> copied(Problem(some, some), some.float01(), None, torch.Generator())
        0.0
    """
    judged = problem.real is not None and classifier is not None
    unseen = problem.real if judged and problem.real is not None else problem.biased.part(generator)
    embed = fixed_features if classifier is None else classifier.embed
    if len(unseen) < 2:
        return None
    most = min(len(unseen), len(problem.reference), COPIES)
    rows = permutation(len(problem.reference), generator, "cpu")[:most]
    others = permutation(len(unseen), generator, "cpu")[: max(most, 2 * COPIES)]
    seen, fresh = (embed(part.float01().to(x.device)) for part in (problem.reference[rows], unseen[others]))
    return copied_share(embed(x), seen, fresh, generator=generator)


def _reconstruction(model: Debiaser) -> Any:
    like = next(model.vae_.parameters())
    return lambda x: model.vae_.decode(model.vae_.encode(x.to(like.device)))


def _accuracy(panel: Panel, problem: Problem) -> dict[str, float]:
    """Share of test images that each judge reads right."""
    test = problem.judge_test
    if test is None or test.labels is None:
        return {}
    device = next(panel.insider.parameters()).device
    seen, meant = panel.read(test.float01().to(device))
    rows = zip([*panel.strangers, "insider"], [*seen, meant], strict=True)
    return {name: float((row == test.labels).double().mean()) for name, row in rows}


def _without_judge(features: Tensor, real: Tensor, name: str, generator: torch.Generator) -> dict[str, float]:
    """Distances to the real images in fixed features; the real ones themselves are cut into two halves."""
    if name == "real":
        order = permutation(len(real), generator, "cpu").to(real.device)
        features, real = real[order[::2]], real[order[1::2]]
    some = [part[permutation(len(part), generator, "cpu")[:TESTED]].cpu() for part in (features, real)]
    test = agreement(*some, generator=generator, permutations=PERMUTATIONS)
    return {"frechet": frechet_distance(features, real), "energy_distance": test.distance, "p_value": test.p_value}
