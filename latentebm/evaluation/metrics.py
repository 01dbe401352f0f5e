"""Balance and quality of generated images, as a classifier reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentebm.evaluation.fidelity import frechet_distance, neighbourhoods
from latentebm.evaluation.judges import Classifier
from latentebm.evaluation.shares import (
    bootstrap_intervals,
    class_shares,
    corrected_shares,
    kl_to_target,
    l2_to_target,
    total_variation,
)
from latentebm.progress import Track, silent

__all__ = ["NEIGHBOURS", "Judgement", "judge"]

NEIGHBOURS = 5  # of an image, among those of its own set, which must be larger to be judged


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a classifier says of a set of images.

    Every ``…_interval`` is a 95 % bootstrap interval of the measure before it, all from one bootstrap, with the
    classifier's confusions taken as known. Precision, recall, density and coverage are those of `Neighbourhoods`.
    """

    shares: list[float]  # of the target's classes among the images
    shares_interval: list[tuple[float, float]]
    other: float  # share read to be in none of them
    shares_corrected: list[float]  # freed of the classifier's known confusions; as they are where it has none
    shares_corrected_interval: list[tuple[float, float]]
    tv: float  # total variation to the target, in [0, 1]
    tv_interval: tuple[float, float]
    tv_corrected: float  # of the corrected shares
    tv_corrected_interval: tuple[float, float]
    kl: float  # divergence of the target from the shares, smoothed by half a draw per class, nats
    kl_interval: tuple[float, float]
    l2: float  # Euclidean distance of the shares to the target
    l2_interval: tuple[float, float]
    absent: int  # target classes without a single image
    confidence: float  # mean of the largest class probability
    frechet: float  # Fréchet distance to real images in the classifier's features
    precision: float
    recall: float
    density: float
    coverage: float
    by_class: list[dict[str, float] | None]  # the last five within each class as read; None where images are too few

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def judge(
    images: Tensor,
    real: Tensor,
    classifier: Classifier,
    classes: Sequence[int],
    target: Sequence[float],
    *,
    confusion: Tensor | None = None,
    generator: torch.Generator,
    track: Track = silent,
) -> Judgement:
    """Judge generated images against a target and held-out real images of the target's shares.

    Both are (N, C, H, W) in [0, 1]. `classes` are the classifier's indices of the target's classes; `confusion` says
    how often it reads class i as j, (K, K), of all K classes it knows, and is None where that is unknown.

    Example:
        >>> same = torch.rand(20, 1, 8, 8)
        >>> found = judge(same, same, Classifier((1, 8, 8), 2), [0, 1], [0.5, 0.5], generator=torch.Generator())
        >>> found.precision, found.coverage, abs(found.frechet) < 1e-6
        (1.0, 1.0, True)
    """
    parts = [classifier.embed(part) for part in track(list(images.split(2048)), "judge")]
    features, truth = torch.cat(parts), classifier.embed(real)
    probabilities = classifier.probabilities(features)
    read, read_real = probabilities.argmax(1).cpu(), classifier.probabilities(truth).argmax(1).cpu()
    return Judgement(
        **_balance(read, probabilities.shape[1], classes, target, confusion, generator),
        **_quality(features, truth),
        confidence=float(probabilities.max(1).values.mean()),
        by_class=[_class_quality(features[read == k], truth[read_real == k]) for k in classes],
    )


def _balance(
    read: Tensor,
    n_known: int,
    classes: Sequence[int],
    target: Sequence[float],
    confusion: Tensor | None,
    generator: torch.Generator,
) -> dict[str, Any]:
    rates = torch.eye(n_known) if confusion is None else confusion
    chosen, full = list(classes), np.array(class_shares(read, range(n_known)))

    def measures(p: np.ndarray) -> dict[str, Any]:
        seen, corrected = p[chosen], np.array(corrected_shares(p, rates))[chosen]
        return {
            "shares": seen.tolist(),
            "shares_corrected": corrected.tolist(),
            "tv": total_variation(seen, target),
            "tv_corrected": total_variation(corrected, target),
            "kl": kl_to_target(seen, target, len(read)),
            "l2": l2_to_target(seen, target),
        }

    found = measures(full)
    return {
        **found,
        **_intervals(full, len(read), measures, generator),
        "other": max(0.0, 1 - sum(found["shares"])),
        "absent": sum(p == 0 < t for p, t in zip(found["shares"], target, strict=True)),
    }


def _intervals(
    full: np.ndarray, n: int, measures: Callable[[np.ndarray], dict[str, Any]], generator: torch.Generator
) -> dict[str, Any]:
    """An interval of each measure, a list of them where it has one value per class; all from one bootstrap."""
    flat = iter(bootstrap_intervals(full, n, lambda p: np.hstack(list(measures(p).values())), generator=generator))
    return {
        f"{name}_interval": [next(flat) for _ in value] if isinstance(value, list) else next(flat)
        for name, value in measures(full).items()
    }


def _quality(features: Tensor, real: Tensor) -> dict[str, Any]:
    return {"frechet": frechet_distance(features, real), **asdict(neighbourhoods(features, real, k=NEIGHBOURS))}


def _class_quality(features: Tensor, real: Tensor) -> dict[str, float] | None:
    return _quality(features, real) if min(len(features), len(real)) > NEIGHBOURS else None
