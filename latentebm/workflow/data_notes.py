"""What is odd about a run's data: said, since nothing of it is wrong enough to refuse."""

from __future__ import annotations

import hashlib

import torch

from latentebm.data.images import Images
from latentebm.data.imbalance import larger_reference
from latentebm.workflow.problem import Problem

__all__ = ["data_notes", "shared_images"]


def shared_images(first: Images, second: Images) -> int:
    """How many images of the second set are also in the first, pixel by pixel, by their SHA-256.

    Example:
        >>> import torch
        >>> images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 2, 2)
        >>> shared_images(Images(images), Images(images[2:]))
        2
    """
    known = _hashes(first)
    return sum(digest in known for digest in _hashes(second, unique=False))


def data_notes(problem: Problem) -> list[str]:
    """One sentence on each odd thing about the arrays of a run.

    Example:
        >>> import torch
        >>> few = Images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
        >>> [note.partition(":")[0] for note in data_notes(Problem(few, few))]
        ['3 of the 3 reference images are among the biased images too, pixel by pixel']
    """
    m = len(problem.reference)
    larger = larger_reference(m, len(problem.biased))
    notes = [] if larger is None else [larger]
    if same := shared_images(problem.biased.part(torch.Generator()), problem.reference):
        notes.append(
            f"{same:,} of the {m:,} reference images are among the biased images too, pixel by pixel: the generator "
            "has seen them, so that held-out figures of the tilt are optimistic."
        )
    counts = problem.counts(problem.reference) if problem.classes else None
    single = [name for name, c in zip(problem.class_names, counts or [], strict=False) if c == 1]
    if single:
        notes.append(f"The reference has a single image of {', '.join(single)}: its share rests on that one.")
    if problem.reference.labels is not None and problem.biased.labels is None:
        notes.append("The labels of the reference are not used: the data have none, and nothing is fitted to labels.")
    return notes


def _hashes(images: Images, *, unique: bool = True) -> set[bytes] | list[bytes]:
    rows = (hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in images.images)
    return set(rows) if unique else list(rows)
