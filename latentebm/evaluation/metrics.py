"""Balance and quality of generated images, judged by a classifier's classes and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from latentebm.checks import check_int, fail
from latentebm.evaluation.classifier import Classifier
from latentebm.progress import Track, silent

__all__ = [
    "Judgement",
    "class_shares",
    "density_coverage",
    "frechet_distance",
    "judge",
    "total_variation",
    "tv_interval",
]


@dataclass(frozen=True)
class Judgement:
    """What the judge says of a set of images.

    Attributes:
        shares: share of the images in each target class.
        other: share judged to be in none of them.
        tv: total variation to the target, in [0, 1].
        tv_interval: 95 % bootstrap interval of it.
        confidence: mean of the largest class probability.
        frechet: Fréchet distance to real images in the classifier's features.
        density: mean count of real neighbourhoods around a generated image, relative to its expectation; 1 is ideal.
        coverage: share of real images with a generated one in their neighbourhood; 1 is ideal.

    Example:
        >>> Judgement([1.0], 0.0, 0.0, (0.0, 0.0), 1.0, 0.0, 1.0, 1.0).as_dict()["tv"]
        0.0
    """

    shares: list[float]
    other: float
    tv: float
    tv_interval: tuple[float, float]
    confidence: float
    frechet: float
    density: float
    coverage: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def class_shares(predicted: Tensor, classes: Sequence[int]) -> list[float]:
    """Share of predictions in each of `classes`; what is missing to one lies in other classes.

    Arguments:
        predicted: class indices, (N,).
        classes: the classes of interest.

    Raises:
        ValueError: there are no predictions.

    Example:
        >>> class_shares(torch.tensor([0, 0, 1, 7]), [0, 1])
        [0.5, 0.25]
    """
    if not len(predicted):
        raise fail("predicted", "at least one prediction", 0, "draw some images first")
    return [float((predicted == k).double().mean()) for k in classes]


def total_variation(shares: Sequence[float], target: Sequence[float]) -> float:
    r"""Total variation between class shares and a target, mass outside the target's classes included.

    .. math:: \mathrm{TV} = \tfrac12 \Big(\sum_k |p_k - t_k| + 1 - \sum_k p_k\Big)

    Arguments:
        shares: share of each target class, summing to at most one.
        target: wanted shares, summing to one.

    Raises:
        ValueError: lengths differ.

    References:
        Markov Chains and Mixing Times, chapter 4 (Levin, Peres and Wilmer, 2009).

    Example:
        >>> total_variation([0.5, 0.25], [0.5, 0.5])
        0.25
    """
    if len(shares) != len(target):
        raise fail("shares", f"{len(target)} values, one a target class", len(shares), "pass one share a class")
    return 0.5 * (sum(abs(p - t) for p, t in zip(shares, target, strict=True)) + max(0.0, 1 - sum(shares)))


def tv_interval(
    shares: Sequence[float], target: Sequence[float], n: int, *, generator: torch.Generator, resamples: int = 1000
) -> tuple[float, float]:
    r"""Percentile bootstrap interval (95 %) of the total variation of `n` draws.

    .. math:: [\mathrm{TV}^*_{(2.5\%)}, \mathrm{TV}^*_{(97.5\%)}], \quad n p^* \sim \mathrm{Multinomial}(n, p)

    Arguments:
        shares: observed share of each target class.
        target: wanted shares.
        n: draws behind the shares.
        generator: seeds the bootstrap.
        resamples: bootstrap samples.

    Raises:
        ValueError: n below one or lengths differ.

    References:
        An Introduction to the Bootstrap (Efron and Tibshirani, 1993).

    Example:
        >>> low, high = tv_interval([0.6, 0.4], [0.5, 0.5], 10_000, generator=torch.Generator().manual_seed(0))
        >>> low < 0.1 < high
        True
    """
    check_int("n", n)
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    full = np.array([*shares, max(0.0, 1 - sum(shares))])
    samples = rng.multinomial(n, full / full.sum(), size=resamples)[:, :-1] / n
    values = [total_variation(row.tolist(), target) for row in samples]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def frechet_distance(features: Tensor, real: Tensor) -> float:
    r"""Fréchet distance between Gaussians fitted to two sets of features.

    .. math:: |\mu - \mu_r|^2 + \mathrm{tr}(\Sigma + \Sigma_r - 2(\Sigma \Sigma_r)^{1/2})

    Arguments:
        features: (N, F).
        real: (M, F).

    Raises:
        ValueError: fewer than two rows on a side.

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500

    Example:
        >>> x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(x + 1, x), 2)
        2.0
    """
    if min(len(features), len(real)) < 2:
        raise fail("features", "at least 2 rows on each side", min(len(features), len(real)), "draw more images")
    identity = nn.Identity()
    identity.num_features = features.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=identity, input_img_size=(1, 1, features.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(real.double().cpu(), real=True)
    metric.update(features.double().cpu(), real=False)
    return float(metric.compute())


def density_coverage(features: Tensor, real: Tensor, *, k: int = 5) -> tuple[float, float]:
    r"""Density and coverage in feature space, with balls of the k-th neighbour around real images.

    .. math:: \mathrm{density} = \tfrac{1}{kN} \sum_{ij} 1[x_i \in B_j], \qquad
              \mathrm{coverage} = \tfrac1M \sum_j 1[\exists i: x_i \in B_j]

    Arguments:
        features: of generated images, (N, F).
        real: of real images, (M, F).
        k: neighbours.

    Raises:
        ValueError: k real neighbours do not exist.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020),
        https://arxiv.org/abs/2002.09797

    Example:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> density_coverage(x, x)[1]
        1.0
    """
    if len(real) <= k:
        raise fail("real", f"more than k={k} rows", len(real), "pass more real images or lower k")
    fake, true = features.cpu().numpy(), real.cpu().numpy()
    neighbours = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(true)
    radius = neighbours.kneighbors(true)[0][:, -1]
    inside = np.zeros(len(true), dtype=np.int64)
    for part in np.array_split(fake, max(1, len(fake) // 2000)):
        distance = torch.cdist(torch.from_numpy(part), torch.from_numpy(true)).numpy()
        inside += (distance <= radius).sum(0)
    return float(inside.sum() / (k * len(fake))), float((inside > 0).mean())


def judge(
    images: Tensor,
    real: Tensor,
    classifier: Classifier,
    classes: Sequence[int],
    target: Sequence[float],
    *,
    generator: torch.Generator,
    track: Track = silent,
) -> Judgement:
    """Judge generated images against a target and held-out real images of the target's shares.

    Arguments:
        images: generated, (N, C, H, W) in [0, 1].
        real: held-out real ones, (M, C, H, W) in [0, 1].
        classifier: the judge.
        classes: the classifier's indices of the target's classes.
        target: wanted share of each.
        generator: seeds the bootstrap.
        track: shows progress.

    Raises:
        ValueError: shapes or lengths that don't fit.

    References:
        The functions above name theirs.

    Example:
        >>> judgement = judge(torch.rand(20, 1, 8, 8), torch.rand(20, 1, 8, 8), Classifier((1, 8, 8), 2), [0, 1],
        ...                   [0.5, 0.5], generator=torch.Generator())
        >>> 0 <= judgement.tv <= 1
        True
    """
    parts = list(track(images.split(2048), "judge"))
    features = torch.cat([classifier.embed(part) for part in parts])
    probabilities = classifier.probabilities(features)
    shares = class_shares(probabilities.argmax(1).cpu(), classes)
    truth = classifier.embed(real)
    density, coverage = density_coverage(features, truth)
    return Judgement(
        shares=shares,
        other=max(0.0, 1 - sum(shares)),
        tv=total_variation(shares, target),
        tv_interval=tv_interval(shares, target, len(images), generator=generator),
        confidence=float(probabilities.max(1).values.mean()),
        frechet=frechet_distance(features, truth),
        density=density,
        coverage=coverage,
    )
