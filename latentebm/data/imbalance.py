"""Class imbalance made to measure: a large biased set and a small reference set of the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_shares, fail
from latentebm.rng import permutation

__all__ = ["biased_split", "draw_shares", "larger_reference", "within_classes"]


def _as_labels(labels: Tensor | np.ndarray | Sequence[int]) -> Tensor:
    """Labels (N,) as a tensor of whole numbers, from a tensor, an array or a list."""
    values = labels if isinstance(labels, Tensor) else np.asarray(labels)
    whole = not values.is_floating_point() if isinstance(values, Tensor) else values.dtype.kind in "iub"
    if values.ndim != 1 or not whole:
        fix = "number the classes, for example by np.unique(names, return_inverse=True)"
        raise fail("labels", "whole numbers of shape (N,)", f"{values.dtype} of shape {tuple(values.shape)}", fix)
    return torch.as_tensor(values)


def draw_shares(
    labels: Tensor | np.ndarray,
    classes: Sequence[int],
    shares: Sequence[float],
    total: int,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Draw rows without replacement so that class k gets ⌊total · share_k⌋ of them; return their sorted numbers.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> labels[draw_shares(labels, [0, 1], [0.75, 0.25], 4, generator=torch.Generator())]
        tensor([0, 0, 0, 1])
    """
    labels, chosen = _as_labels(labels), []
    for k, share in zip(classes, check_shares("proportions", shares, len(classes)), strict=True):
        rows = torch.nonzero(labels == k).flatten()
        wanted = int(total * share + 1e-9)
        if wanted > len(rows):
            fix = "lower its share or the biased fraction"
            raise fail("proportions", f"at most {len(rows)} images of class {k}", f"{wanted}", fix)
        chosen.append(rows[permutation(len(rows), generator, rows.device)[:wanted]])
    return torch.cat(chosen).sort().values


def within_classes(
    labels: Tensor | np.ndarray, classes: Sequence[int], proportions: Sequence[float], fraction: float
) -> float:
    r"""The largest share of all rows, up to `fraction`, that asks no class for more than `fraction` of its own rows.

    .. math:: f' = f \min\big(1, \min_k N_k / (p_k N)\big)

    A long tail over many classes takes most of its rows from the first ones: at the full fraction of all rows these
    would be asked for more than they have. What is left over is kept for the reference.

    References:
        Class-Balanced Loss Based on Effective Number of Samples (Cui et al., 2019), https://arxiv.org/abs/1901.05555

    Example:
        >>> y = torch.arange(4).repeat(50)
        >>> within_classes(y, range(4), [0.5, 0.3, 0.1, 0.1], 0.8)
        0.4
    """
    labels = _as_labels(labels)
    counts = [int((labels == k).sum()) for k in classes]
    room = min(n / (p * sum(counts)) for n, p in zip(counts, proportions, strict=True) if p > 0)
    return fraction * min(1.0, room)


def biased_split(
    labels: Tensor | np.ndarray,
    classes: Sequence[int],
    proportions: Sequence[float],
    *,
    biased_fraction: float = 0.6,
    reference_per_class: int | None = None,
    target: Sequence[float] | None = None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    r"""The rows of a biased set and of a disjoint reference set with the target's class shares, by labels (N,).

    The biased set takes :math:`\lfloor \lfloor f N \rfloor\, p_k \rfloor` rows of class k out of the N rows of
    `classes`; the reference takes from the rest all that the target allows, or `reference_per_class` on average.

    `proportions` are p, `biased_fraction` is f in (0, 1], and a `target` of None is uniform.

    Raises:
        ValueError: a class is absent, proportions can't be met, or too little is left for the reference.

    Example:
        >>> y = torch.arange(2).repeat(50)
        >>> b, r = biased_split(y, [0, 1], [0.8, 0.2], biased_fraction=0.5, generator=torch.Generator())
        >>> torch.bincount(y[b]).tolist(), torch.bincount(y[r]).tolist()
        ([40, 10], [10, 10])
    """
    labels = _as_labels(labels)
    check_number("biased_fraction", biased_fraction, low=0, high=1, open_low=True)
    shares = check_shares("target", target or [1 / len(classes)] * len(classes), len(classes))
    counts = [int((labels == k).sum()) for k in classes]
    absent = [k for k, c in zip(classes, counts, strict=True) if c == 0]
    if absent:
        raise fail("classes", "classes that the data have", f"{absent}, which are absent", "leave them out")
    total = int(biased_fraction * sum(counts))
    biased = draw_shares(labels, classes, proportions, total, generator=generator)
    rest = labels.clone()
    rest[biased] = -1
    room = int(min(int((rest == k).sum()) / s for k, s in zip(classes, shares, strict=True) if s > 0) + 1e-9)
    size = room if reference_per_class is None else check_int("reference_per_class", reference_per_class) * len(classes)
    if size > room or room < 2:
        expected, fix = (
            f"at most {room / len(classes):.6g}, with at least 2 images in all",
            "lower it, or lower the biased fraction",
        )
        raise fail("reference_per_class", expected, f"{size / len(classes):.6g}", fix)
    return biased, draw_shares(rest, classes, shares, size, generator=generator)


def larger_reference(reference: int, biased: int) -> str | None:
    """What to say of a reference of more images than the biased set has; None where it has no more.

    Example:
        >>> print(larger_reference(2_000, 500))
        The reference has 2,000 images, the biased set 500: a generator trained on the reference alone may serve better.
        >>> larger_reference(500, 2_000) is None
        True
    """
    if reference <= biased:
        return None
    sizes = f"The reference has {reference:,} images, the biased set {biased:,}"
    return f"{sizes}: a generator trained on the reference alone may serve better."
