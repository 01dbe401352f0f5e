"""Balance without labels: how draws and reference images fall into clusters of raw images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from latentebm.checks import check_finite, check_int, fail
from latentebm.rng import draw_seed

__all__ = ["FEWEST", "ClusterBalance", "cluster_balance"]

SIDE, COMPONENTS, PER_CLUSTER = 32, 24, 8  # largest side of an image, numbers kept of it, least images per cluster
FEWEST = 2 * PER_CLUSTER  # images of a side, for two clusters
RESAMPLES, APART, LACKING = 500, 0.1, 0.5


@dataclass(frozen=True, kw_only=True)
class ClusterBalance:
    """Shares of clusters among reference images and draws.

    Attributes:
        reference: shares among reference images, largest first.
        draws: shares among the draws.
        nearest: index of the reference image nearest to each centre.
        tv: total variation between the two.
        interval: its 95 % interval by bootstrap of both sets.
        floor: what two sets of these sizes from the reference's own shares reach in 95 of 100 cases.
        balanced: whether the interval reaches down to the floor and .1 more, which blurred images may differ by.
        lacking: clusters with less than half of the reference's share, by index.
    """

    reference: list[float]
    draws: list[float]
    nearest: list[int]
    tv: float
    interval: tuple[float, float]
    floor: float
    balanced: bool
    lacking: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def cluster_balance(
    reference: Tensor, draws: Tensor, *, generator: torch.Generator, clusters: int = 10
) -> ClusterBalance:
    r"""Compare shares of clusters, found among reference images without labels, between them and draws.

    .. math:: \mathrm{TV} = \tfrac12 \sum_k |p_k - q_k|

    Clusters are k-means in principal components of raw images: no network that could share the model's faults.

    Arguments:
        reference: images (n, C, H, W) in [0, 1].
        draws: images (m, C, H, W) in [0, 1].
        generator: source of starts and resamples.
        clusters: most of them; fewer where the reference has fewer than eight images for each.

    Raises:
        ValueError: fewer than 16 images on a side, other shapes, or values that are not finite.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> dark, light = 0.2 * torch.rand(200, 1, 4, 4, generator=g), 1 - 0.2 * torch.rand(200, 1, 4, 4, generator=g)
        >>> both = torch.cat([dark, light])
        >>> fair, skewed = (cluster_balance(both[::2], x, generator=g, clusters=2) for x in (both[1::2], both[:220]))
        >>> fair.balanced, skewed.balanced, round(skewed.tv, 2), len(skewed.lacking)
        (True, False, 0.41, 1)
    """
    check_int("clusters", clusters, low=2)
    if reference.shape[1:] != draws.shape[1:]:
        raise fail("draws", f"shape (m, {tuple(reference.shape[1:])})", tuple(draws.shape), "pass images of one shape")
    for name, images in (("reference", reference), ("draws", draws)):
        check_int(name, len(check_finite(name, images)), low=FEWEST, fix="pass more images")
    rng = np.random.default_rng(draw_seed(generator))
    known, drawn = _numbers(reference), _numbers(draws)
    pca = PCA(min(COMPONENTS, *known.shape), random_state=int(rng.integers(2**31))).fit(known)
    known, drawn = pca.transform(known), pca.transform(drawn)
    k = min(clusters, len(known) // PER_CLUSTER)
    means = KMeans(k, n_init=4, random_state=int(rng.integers(2**31))).fit(known)
    p, q = (np.bincount(means.predict(x), minlength=k) / len(x) for x in (known, drawn))
    order = np.argsort(-p)
    nearest = means.transform(known).argmin(0)
    return _balance(p[order], q[order], nearest[order].tolist(), (len(known), len(drawn)), rng)


def _balance(
    p: np.ndarray, q: np.ndarray, nearest: list[int], sizes: tuple[int, int], rng: np.random.Generator
) -> ClusterBalance:
    n, m = sizes
    ref, own = rng.multinomial(n, p, RESAMPLES) / n, rng.multinomial(m, q, RESAMPLES) / m
    other = rng.multinomial(m, p, RESAMPLES) / m
    low, high = np.quantile(_tv(ref, own), [0.025, 0.975]).tolist()
    floor, tv = float(np.quantile(_tv(ref, other), 0.95)), float(_tv(p, q))
    return ClusterBalance(
        reference=p.tolist(),
        draws=q.tolist(),
        nearest=nearest,
        tv=tv,
        interval=(low, high),
        floor=floor,
        balanced=low <= floor + APART,
        lacking=np.flatnonzero(q < LACKING * p).tolist(),
    )


def _tv(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.abs(p - q).sum(-1) / 2


def _numbers(images: Tensor) -> np.ndarray:
    """Images as rows of at most C × 32 × 32 numbers."""
    x = images.detach().cpu().float()
    height, width = x.shape[-2:]
    if max(height, width) > SIDE:
        x = adaptive_avg_pool2d(x, (min(height, SIDE), min(width, SIDE)))
    return x.flatten(1).numpy()
