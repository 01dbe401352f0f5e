"""From settings to arrays: the biased set, the reference, and data for the evaluation classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.data.images import TORCHVISION, Images, load_images, open_images
from latentebm.data.imbalance import biased_split, draw_shares, within_classes
from latentebm.data.labelled import StoredSet
from latentebm.evaluation.metrics import NEIGHBOURS
from latentebm.settings.fields import Settings
from latentebm.settings.values import ALL, FIRST_FIVE, Classes, LongTail, OfReference, biased_shares

__all__ = ["Problem", "pose"]

Data = Images | StoredSet
HELD_OUT = 0.1  # share of a user's labelled images kept for judging; built-in data have a test part


@dataclass(frozen=True)
class Problem:
    """The arrays of one run.

    Attributes:
        biased: what the generator learns; on disk where it is large.
        reference: what the tilt learns.
        judge_train: labelled images the evaluation classifier learns from, or None.
        judge_test: labelled images it is tested on, or None.
        real: held-out real images with the target's class shares, or None.
        classes: indices of the run's classes in the classifier's output.
        class_names: their names.
        target: wanted share of each.
        unjudged: why there is no evaluation classifier; empty when there is one.
    """

    biased: Data
    reference: Images
    judge_train: Images | None = None
    judge_test: Images | None = None
    real: Images | None = None
    classes: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    target: tuple[float, ...] = ()
    unjudged: str = ""

    def counts(self, part: Data) -> list[int] | None:
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
    data = open_images(settings.data, root=settings.data_root, resize=settings.resize)
    if len(data) < 2:
        raise fail("data", "at least 2 images", len(data), "pass more images")
    if data.labels is None:
        return _unlabelled(settings, data)
    built_in = settings.data in TORCHVISION
    classes = _classes(settings, data.class_names, built_in).pick(data.class_names)
    absent = [data.class_names[k] for k in classes if not bool((data.labels == k).any())]
    if absent:
        raise fail("classes", "classes that the data have", f"{', '.join(absent)} absent", "leave them out")
    pool, test_part = data, data
    if built_in:
        test_part = load_images(settings.data, root=settings.data_root, train=False, resize=settings.resize)
    else:
        pool, test_part = _hold_out(data, generator)
    cut = _cut if settings.reference is None else _with_reference
    return cut(settings, pool, test_part, classes, generator)


def _cut(settings: Settings, pool: Data, test_part: Data, classes: list[int], generator: torch.Generator) -> Problem:
    """Both sets are cut from the same images, without any in common."""
    names = tuple(pool.class_names[k] for k in classes)
    target, shares = settings.target.of(names), biased_shares(settings.proportions, names)
    labels, fraction = _labels(pool), settings.biased_fraction
    if isinstance(settings.proportions, LongTail):
        fraction = within_classes(labels, classes, shares, fraction)
    sizes: dict[str, Any] = {"biased_fraction": fraction, "reference_per_class": settings.reference_per_class}
    biased, reference = biased_split(labels, classes, shares, **sizes, target=target, generator=generator)
    _check_seen(labels[biased], classes, names, target)
    return _judged(Problem(pool[biased], _whole(pool[reference])), pool, test_part, classes, target, generator)


def _classes(settings: Settings, names: tuple[str, ...], built_in: bool) -> Classes:
    """The classes asked for; a long tail is over all, and built-in data are cut to the first five."""
    if settings.classes is not None:
        return settings.classes
    return FIRST_FIVE if built_in and len(names) > 5 and not isinstance(settings.proportions, LongTail) else ALL


def _check_seen(labels: Tensor, classes: list[int], names: tuple[str, ...], target: list[float]) -> None:
    """Refuse a target of classes that the model has never seen: reweighting cannot add them."""
    unseen = [n for k, n, t in zip(classes, names, target, strict=True) if t > 0 and not bool((labels == k).any())]
    if unseen:
        expected, got = "classes that the biased set has: reweighting cannot add one", f"none of {', '.join(unseen)}"
        raise fail("target", expected, got, "leave them out, or give them a share in proportions")


def _unlabelled(settings: Settings, data: Data) -> Problem:
    if settings.reference is None:
        expected = "unbiased images, since the data have no labels"
        raise fail("reference", expected, "None", "pass reference=PATH")
    chosen = {
        "classes": settings.classes,
        "target": None if isinstance(settings.target, OfReference) else settings.target,
    }
    for name, value in chosen.items():
        if value is not None:
            expected, fix = "None, since the data have no labels", "leave it out, or give the data labels"
            raise fail(name, expected, f"'{value}'", fix)
    reason = "The data have no labels, so no classifier can be trained to judge class shares."
    return Problem(data, _reference(settings.reference, data, settings.resize), unjudged=reason)


def _whole(reference: Data) -> Images:
    """A reference cut from the data, in memory."""
    try:
        return reference.whole()
    except ValueError as error:
        raise ValueError(str(error).replace("take fewer images", "pass a smaller reference_per_class")) from None


def _reference(path: str, data: Data, side: int | None) -> Images:
    if not Path(path).exists():
        raise FileNotFoundError(f"reference: expected a file or folder at {path}, found none; check the path")
    reference = load_images(path, resize=side, name="reference")
    if len(reference) < 2:
        raise fail("reference", "at least 2 images", len(reference), "pass more reference images")
    if reference.images.shape[1:] != data.images.shape[1:]:
        got = f"{tuple(reference.images.shape[1:])}, the data {tuple(data.images.shape[1:])}"
        raise fail("reference", "images of the data's shape", got, "pass resize=28, say, or images of as many channels")
    return reference


def _with_reference(
    settings: Settings, pool: Data, test_part: Data, classes: list[int], generator: torch.Generator
) -> Problem:
    """All images of the chosen classes are the biased set; the reference is the user's."""
    reference = _reference(str(settings.reference), pool, settings.resize)
    names = tuple(pool.class_names[k] for k in classes)
    keep = torch.isin(_labels(pool), torch.tensor(classes))
    problem = Problem(pool[torch.nonzero(keep).flatten()], reference)
    if not isinstance(settings.target, OfReference):
        target = settings.target.of(names)
    elif reference.labels is None:
        reason = "The reference has no labels, so its class shares are unknown; pass a target to be judged."
        return Problem(problem.biased, reference, class_names=names, classes=tuple(classes), unjudged=reason)
    else:
        counts = torch.tensor([float((reference.labels == k).sum()) for k in classes])
        if counts.sum() < len(reference):
            fix = "drop those images or name their classes"
            raise fail("reference labels", f"the classes {', '.join(names)}", "others too", fix)
        target = (counts / counts.sum()).double().tolist()
    return _judged(problem, pool, test_part, classes, target, generator)


def _hold_out(data: Data, generator: torch.Generator) -> tuple[Data, Data]:
    """Set a tenth of each class aside, at least one image, for judging."""
    labels = _labels(data)
    aside = []
    for k in range(len(data.class_names)):
        rows = torch.nonzero(labels == k).flatten()
        share = max(1, int(len(rows) * HELD_OUT)) if len(rows) > 1 else 0
        aside.append(rows[torch.randperm(len(rows), generator=generator)[:share]])
    test_part = torch.cat(aside)
    keep = torch.ones(len(data), dtype=torch.bool)
    keep[test_part] = False
    return data[torch.nonzero(keep).flatten()], data[test_part]


def _judged(
    problem: Problem, train: Data, test: Data, classes: list[int], target: list[float], generator: torch.Generator
) -> Problem:
    """Add the evaluation classifier's data: images to learn and be tested on, and real ones in the target's shares."""
    train, test = train.part(generator), test.part(generator)
    labels = _labels(test)
    room = min(int((labels == k).sum()) / t for k, t in zip(classes, target, strict=True) if t > 0)
    real = test[draw_shares(labels, classes, target, int(room + 1e-9), generator=generator)]
    names = tuple(train.class_names[k] for k in classes)
    reason = "" if len(real) > NEIGHBOURS else f"Only {len(real)} labelled images could be held out to judge with."
    return Problem(
        problem.biased,
        problem.reference,
        judge_train=train,
        judge_test=test,
        real=real,
        classes=tuple(classes),
        class_names=names,
        target=tuple(target),
        unjudged=reason,
    )


def _labels(data: Data) -> Tensor:
    if data.labels is None:
        raise fail("data", "labels", "none", "pass labelled images")
    return data.labels
