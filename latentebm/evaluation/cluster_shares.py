"""Balance without labels: how draws and reference images fall into clusters of raw images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
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
NOISY, SMOOTH = 1 / 3, 1 / 3  # of the reference's variance within clusters: noise above, the draws' own below
GAP = 8.0  # distance of two clusters' means in their standard deviations that noise alone does not reach


@dataclass(frozen=True, kw_only=True)
class ClusterBalance:
    """Shares of clusters among reference images and draws.

    Where one cluster is left there is nothing to compare, and `balanced` is None.

    Attributes:
        reference: shares among reference images, largest first.
        draws: shares among the draws.
        nearest: index of the reference image nearest to each centre.
        tv: total variation between the two.
        interval: its 95 % interval by bootstrap of both sets.
        floor: what two sets of these sizes from the reference's own shares reach in 95 of 100 cases.
        balanced: whether the interval reaches down to the floor and .1 more, which blurred images may differ by; None
            where one cluster is left.
        lacking: clusters with less than half of the reference's share, by index.
    """

    reference: list[float]
    draws: list[float]
    nearest: list[int]
    tv: float
    interval: tuple[float, float]
    floor: float
    balanced: bool | None
    lacking: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def cluster_balance(
    reference: Tensor, draws: Tensor, *, generator: torch.Generator, clusters: int = 10
) -> ClusterBalance:
    r"""Compare shares of clusters, found among reference images without labels, between them and draws.

    .. math:: \mathrm{TV} = \tfrac12 \sum_k |p_k - q_k|

    Clusters are k-means in principal components of raw images: no network that could share the model's faults. Draws
    that are means without noise may lie all in one of the clusters into which noise alone parts raw images. So where
    noise is more than a third of the reference's variance within clusters, and the draws have less than a third of that
    variance, clusters are merged that no gap parts (Ashman's D below 8).

    Arguments:
        reference: images (n, C, H, W) in [0, 1].
        draws: images (m, C, H, W) in [0, 1].
        generator: source of starts and resamples.
        clusters: most of them; fewer where the reference has fewer than eight images for each.

    Raises:
        ValueError: fewer than 16 images on a side, other shapes, or values that are not finite.

    References:
        Probabilistic principal component analysis (Tipping and Bishop, 1999), of the noise; Detecting bimodality in
        astronomical datasets (Ashman, Bird and Zepf, 1994)

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
    labels = [means.predict(x) for x in (known, drawn)]
    nearest = means.transform(known).argmin(0)
    spread = _spread(known, labels[0])
    if pca.noise_variance_ * pca.n_components_ > NOISY * spread and _spread(drawn, labels[1]) < SMOOTH * spread:
        group = _merged(known, labels[0], k)
        k, labels = group.max() + 1, [group[found] for found in labels]
        nearest = nearest[[np.argmax(group == g) for g in range(k)]]
    p, q = (np.bincount(found, minlength=k) / len(found) for found in labels)
    order = np.argsort(-p)
    return _balance(p[order], q[order], nearest[order].tolist(), (len(known), len(drawn)), rng)


def _spread(x: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of rows to the mean of their cluster."""
    own = [x[labels == k] for k in np.unique(labels)]
    return float(sum(((part - part.mean(0)) ** 2).sum() for part in own) / len(x))


def _merged(x: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """For each cluster the number of its group: clusters that no gap parts, one after another, belong together."""
    close = np.zeros((k, k))
    for i in range(k):
        for j in range(i):
            pair = [x[labels == part] for part in (i, j)]
            axis = pair[0].mean(0) - pair[1].mean(0)
            wide = np.sqrt(sum((part @ axis).var() for part in pair) / 2)
            close[i, j] = axis @ axis < GAP * wide
    return np.asarray(connected_components(close, directed=False)[1])


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
        balanced=low <= floor + APART if len(p) > 1 else None,
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
