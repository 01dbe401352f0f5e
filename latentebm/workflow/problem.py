"""From settings to arrays: what is biased, what is the reference, and who may judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.data.images import TORCHVISION, Images, load_images, load_npz
from latentebm.data.imbalance import biased_split, draw_shares, within_classes
from latentebm.evaluation.metrics import NEIGHBOURS
from latentebm.settings.job import Settings, is_long_tail, parse_classes, parse_proportions, parse_target

__all__ = ["Problem", "pose"]

HELD_OUT = 0.1  # share of a user's labelled images kept for judging; built-in data have a test part


@dataclass(frozen=True)
class Problem:
    """The arrays of one run.

    Attributes:
        biased: what the generator learns.
        reference: what the tilt learns.
        lessons: labelled images the judge learns from, or None.
        exam: labelled images the judge is tested on, or None.
        real: held-out real images with the target's class shares, or None.
        classes: the judge's indices of the run's classes.
        class_names: their names.
        target: wanted share of each.
        unjudged: why there is no judge; empty when there is one.

    Example:
        >>> Problem.__name__
        'Problem'
    """

    biased: Images
    reference: Images
    lessons: Images | None = None
    exam: Images | None = None
    real: Images | None = None
    classes: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    target: tuple[float, ...] = ()
    unjudged: str = ""

    def counts(self, part: Images) -> list[int] | None:
        """Images per class of the run, or None without labels."""
        if part.labels is None:
            return None
        return [int((part.labels == k).sum()) for k in self.classes]


def pose(settings: Settings, generator: torch.Generator) -> Problem:
    """Load the data and cut them as the settings say; everything that can be wrong with them is said here.

    Raises:
        FileNotFoundError: data that are not there.
        ValueError: data or settings that don't fit each other.

    Example:
        >>> problem = pose(Settings(reference_per_class=10), torch.Generator().manual_seed(0))
        >>> problem.counts(problem.biased), problem.counts(problem.reference)
        ([2202, 6057, 5139, 3671, 1284], [10, 10, 10, 10, 10])
    """
    data = load_images(settings.data, root=settings.data_root)
    if len(data) < 2:
        raise fail("data", "at least 2 images", len(data), "pass more images")
    if data.labels is None:
        return _unlabelled(settings, data)
    built_in = settings.data in TORCHVISION
    # A long tail is over all classes unless some are chosen.
    chosen = settings.classes or ("all" if is_long_tail(settings.proportions) else None)
    classes = parse_classes(chosen, data.class_names, built_in)
    absent = [data.class_names[k] for k in classes if not bool((data.labels == k).any())]
    if absent:
        raise fail("classes", "classes that the data have", f"{', '.join(absent)} absent", "leave them out")
    if built_in:
        exam = load_images(settings.data, root=settings.data_root, train=False)
        pool = data
    else:
        pool, exam = _hold_out(data, classes, generator)
    if settings.reference is not None:
        return _with_reference(settings, pool, exam, classes, generator)
    names = tuple(data.class_names[k] for k in classes)
    target = parse_target(_cut_target(settings), names)
    shares = parse_proportions(settings.proportions, len(classes))
    labels, fraction = _labels(pool), settings.biased_fraction
    if is_long_tail(settings.proportions):
        fraction = within_classes(labels, classes, shares, fraction)
    biased, reference = biased_split(
        labels,
        classes,
        shares,
        biased_fraction=fraction,
        reference_per_class=settings.reference_per_class,
        target=target,
        generator=generator,
    )
    _made(labels[biased], classes, names, target)
    return _judged(Problem(pool[biased], pool[reference]), pool, exam, classes, target, generator)


def _made(labels: Tensor, classes: list[int], names: tuple[str, ...], target: list[float]) -> None:
    """A tilt reweights what the generator makes; it makes nothing of a class it never saw."""
    unseen = [n for k, n, t in zip(classes, names, target, strict=True) if t > 0 and not bool((labels == k).any())]
    if unseen:
        got = f"{', '.join(unseen)}, of which the biased set has no image"
        raise fail("target", "classes that the generator makes", got, "leave them out, or give them a proportion")


def _cut_target(settings: Settings) -> str:
    if settings.target == "reference":
        fix = "pass --target uniform or shares"
        raise fail("target", "a target of its own, since the reference is cut to it", "'reference'", fix)
    return str(settings.target)


def _unlabelled(settings: Settings, data: Images) -> Problem:
    if settings.reference is None:
        raise fail("reference", "an .npz of unbiased images, since the data have no labels", "none", "pass --reference")
    chosen = {"classes": settings.classes, "target": None if settings.target == "reference" else settings.target}
    for name, value in chosen.items():
        if value is not None:
            fix = f"leave --{name} out, or give the data labels"
            raise fail(name, "none, since the data have no labels", repr(value), fix)
    reason = "The data have no labels, so no classifier can be trained to judge class shares."
    return Problem(data, _reference(settings.reference, data), unjudged=reason)


def _reference(path: str, data: Images) -> Images:
    reference = load_npz(Path(path), "reference")
    if len(reference) < 2:
        raise fail("reference", "at least 2 images", len(reference), "pass more reference images")
    if reference.images.shape[1:] != data.images.shape[1:]:
        got = f"{tuple(reference.images.shape[1:])}, the data {tuple(data.images.shape[1:])}"
        raise fail("reference", "images of the data's shape", got, "resize one to the other")
    return reference


def _with_reference(
    settings: Settings, pool: Images, exam: Images, classes: list[int], generator: torch.Generator
) -> Problem:
    """All images of the chosen classes are the biased set; the reference is the user's."""
    reference = _reference(str(settings.reference), pool)
    names = tuple(pool.class_names[k] for k in classes)
    keep = torch.isin(_labels(pool), torch.tensor(classes))
    problem = Problem(pool[torch.nonzero(keep).flatten()], reference)
    if settings.target != "reference":
        target = parse_target(str(settings.target), names)
    elif reference.labels is None:
        reason = "The reference has no labels, so its class shares are unknown; pass --target to be judged."
        return Problem(problem.biased, reference, class_names=names, classes=tuple(classes), unjudged=reason)
    else:
        counts = torch.tensor([float((reference.labels == k).sum()) for k in classes])
        if counts.sum() < len(reference):
            fix = "drop those images or name their classes"
            raise fail("reference labels", f"the classes {', '.join(names)}", "others too", fix)
        target = (counts / counts.sum()).double().tolist()
    return _judged(problem, pool, exam, classes, target, generator)


def _hold_out(data: Images, classes: list[int], generator: torch.Generator) -> tuple[Images, Images]:
    """Set a tenth of each class aside, at least one image, for judging."""
    labels = _labels(data)
    aside = []
    for k in range(len(data.class_names)):
        rows = torch.nonzero(labels == k).flatten()
        share = max(1, int(len(rows) * HELD_OUT)) if len(rows) > 1 else 0
        aside.append(rows[torch.randperm(len(rows), generator=generator)[:share]])
    exam = torch.cat(aside)
    keep = torch.ones(len(data), dtype=torch.bool)
    keep[exam] = False
    return data[torch.nonzero(keep).flatten()], data[exam]


def _judged(
    problem: Problem, lessons: Images, exam: Images, classes: list[int], target: list[float], generator: torch.Generator
) -> Problem:
    """Add the judge's data: lessons, an exam, and real images in the target's shares."""
    labels = _labels(exam)
    room = min(int((labels == k).sum()) / t for k, t in zip(classes, target, strict=True) if t > 0)
    real = exam[draw_shares(labels, classes, target, int(room + 1e-9), generator=generator)]
    names = tuple(lessons.class_names[k] for k in classes)
    reason = "" if len(real) > NEIGHBOURS else f"Only {len(real)} labelled images could be held out to judge with."
    return Problem(
        problem.biased,
        problem.reference,
        lessons=lessons,
        exam=exam,
        real=real,
        classes=tuple(classes),
        class_names=names,
        target=tuple(target),
        unjudged=reason,
    )


def _labels(data: Images) -> Tensor:
    if data.labels is None:
        raise fail("data", "labels", "none", "pass labelled images")
    return data.labels
