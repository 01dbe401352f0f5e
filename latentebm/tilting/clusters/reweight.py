"""How much more of each kind of image a small reference has than the many biased images."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_int, check_number, fail
from latentebm.models.base.mixture_prior import MixturePrior
from latentebm.progress import Track, silent
from latentebm.rng import draw_seed, permutation
from latentebm.training.fit_mixture import fit_mixture

__all__ = ["cluster_weights", "effective_share", "principal_scores", "raked"]

LEARNED_FROM = 5_000  # biased images that components and clusters are learned from
MOST_NUMBERS = 1 << 23  # of double precision, held at once: fewer images where they are large
RAKINGS = 100
LARGEST = 100.0  # of a cluster's ratio, and of its inverse


def principal_scores(
    biased: Tensor, reference: Tensor, *, components: int = 24, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    r"""Scores of both sets on the first principal components of the biased images.

    .. math:: s_i = V^\top (x_i - \bar x) / \sigma_1

    One scale for all components, the first one's standard deviation σ₁, keeps their proportions.

    Arguments:
        biased: images (N, *data_shape), uint8 or float.
        reference: images (M, *data_shape), of the same kind.
        components: most of them; fewer where there are fewer images or pixels.
        generator: picks the images that the components are learned from.

    Returns:
        (N, F) and (M, F) on the CPU.

    Raises:
        ValueError: images of different shapes, or fewer than two biased ones.

    References:
        On Lines and Planes of Closest Fit to Systems of Points in Space (Pearson, 1901)

    Example:
        >>> images = torch.arange(12.0).reshape(4, 1, 1, 3)
        >>> [tuple(scores.shape) for scores in principal_scores(images, images[:2], generator=torch.Generator())]
        [(4, 3), (2, 3)]
    """
    if biased.shape[1:] != reference.shape[1:]:
        raise fail("reference", f"images of shape {tuple(biased.shape[1:])}", tuple(reference.shape[1:]), "resize them")
    if len(biased) < 2:
        raise fail("biased", "at least 2 images", len(biased), "pass more of them")
    from sklearn.decomposition import PCA  # here, since scikit-learn takes a second

    components = check_int("components", components)
    at_once = max(MOST_NUMBERS // prod(biased.shape[1:]), 20 * components)
    rows = permutation(len(biased), generator, "cpu")[: min(LEARNED_FROM, at_once)]
    sample = _flat(biased[rows])
    fitted = PCA(min(components, *sample.shape), random_state=draw_seed(generator)).fit(sample)
    scale = max(float(np.sqrt(fitted.explained_variance_[0])), 1e-12)
    scores = [
        np.concatenate([fitted.transform(_flat(part)) for part in images.split(min(LEARNED_FROM, at_once))])
        for images in (biased, reference)
    ]
    return torch.from_numpy(scores[0] / scale), torch.from_numpy(scores[1] / scale)


def cluster_weights(
    biased: Tensor,
    reference: Tensor,
    fold: Tensor,
    *,
    clusters: int,
    members: int,
    shrinkage: float = 2.0,
    generator: torch.Generator,
    track: Track = silent,
) -> Tensor:
    r"""Weights under which the biased images fill soft clusters as the reference does.

    .. math:: w_i = \sum_k r_k(x_i)\, \rho_k, \qquad
              \frac{\sum_i w_i\, r_k(x_i)}{\sum_i w_i} = \mathrm{mean}_j\, r_k(x_j)

    The many biased images say which clusters there are (a Gaussian mixture, r its responsibilities); the few reference
    images only how much of each there should be, with `shrinkage` pseudo-images spread like the biased ones. Every
    member has clusters of its own, learned from other images and another start, and never counts its own fold of the
    reference: where one clustering cuts a class badly, the others outvote it.

    Arguments:
        biased: features (N, F).
        reference: features (M, F).
        fold: the member that doesn't count this reference image, (M,).
        clusters: components; fewer with fewer than ten biased images each.
        members: sets of weights.
        shrinkage: pseudo-images towards the biased shares.
        generator: source of the clusterings.
        track: shows progress.

    Returns:
        (members, N), of mean one each.

    Raises:
        ValueError: a number outside its range, or features of different lengths.

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> biased = torch.tensor([-1.0] * 90 + [1.0] * 10)[:, None] + 0.1 * torch.randn(100, 1, generator=rng)
        >>> reference, fold = torch.tensor([[-1.0], [1.0]]).repeat(50, 1), torch.zeros(100, dtype=torch.long)
        >>> weight = cluster_weights(biased, reference, fold + 1, clusters=2, members=1, generator=rng)
        >>> round(float(weight[0, 90:].sum() / weight.sum()), 1)
        0.5
    """
    check_int("members", members)
    check_number("shrinkage", shrinkage, low=0)
    if biased.shape[1:] != reference.shape[1:]:
        raise fail("reference", f"{biased.shape[1]} features", reference.shape[1], "compute both alike")
    count, weights = check_int("clusters", clusters), []
    for m in track(range(members), "clusters"):
        mixture = _clustering(biased, count, generator)
        own, seen = (_responsibilities(mixture, part) for part in (biased, reference[fold != m]))
        share = own.mean(0)
        target = (seen.sum(0) + shrinkage * share) / (len(seen) + shrinkage)
        weights.append(own @ raked(own, target))
    return torch.stack(weights).float()


def effective_share(biased: Tensor, reference: Tensor, *, clusters: int = 20, generator: torch.Generator) -> float:
    r"""How many of the biased images still count once they are weighted as the reference says, as a share of them.

    .. math:: \frac{(\sum_i w_i)^2}{N \sum_i w_i^2}

    with the weights of `cluster_weights` of one clustering. Near 1 the two sets fill the same clusters alike; near 0 a
    few of the biased images must stand for much of the reference.

    Arguments:
        biased: images (N, *data_shape), uint8 or float.
        reference: images (M, *data_shape), of the same kind.
        clusters: components of the mixture.
        generator: source of the clustering.

    Returns:
        In (0, 1]; no labels are needed.

    References:
        A Note on Importance Sampling using Standardized Weights (Kong, 1992)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x = torch.rand(400, 1, 2, 2, generator=rng) / 4
        >>> x[:380] += 0.7
        >>> round(effective_share(x, x, clusters=2, generator=rng), 1)
        1.0
        >>> effective_share(x, torch.cat([x[:20], x[380:]]), clusters=2, generator=rng) < 0.3
        True
    """
    scores = principal_scores(biased, reference, generator=generator)
    everyone = torch.full((len(reference),), -1)
    weight = cluster_weights(*scores, everyone, clusters=clusters, members=1, generator=generator)[0].double()
    return float(weight.sum() ** 2 / (len(weight) * weight.square().sum()))


def _clustering(biased: Tensor, clusters: int, generator: torch.Generator) -> MixturePrior:
    """A mixture of normals fitted to some rows of features, from clusters of k-means."""
    from sklearn.cluster import KMeans

    rows = permutation(len(biased), generator, "cpu")[:LEARNED_FROM]
    x, count = biased[rows.to(biased.device)].double(), max(1, min(clusters, len(rows) // 10))
    with threadpool_limits(1):
        nearest = KMeans(count, n_init=1, random_state=draw_seed(generator)).fit(x.cpu().numpy()).labels_
    first = F.one_hot(torch.from_numpy(nearest).long(), count)
    # The clusters are a partition to reweight, not an estimate: a few more steps would not change its use.
    return fit_mixture(x, first, floor=1e-4, steps=60, tolerance=1e-3)


def _responsibilities(mixture: MixturePrior, x: Tensor) -> Tensor:
    """Share (N, K) of each component in points (N, F)."""
    return mixture.log_each(x.double()).softmax(1)


def raked(own: Tensor, target: Tensor) -> Tensor:
    """Ratios ρ (K,) under which images of responsibilities `own` (N, K) fill the clusters as `target` (K,) says.

    References:
        On a Least Squares Adjustment of a Sampled Frequency Table When the Expected Marginal Totals are Known (Deming
        and Stephan, 1940)

    Example:
        >>> own = torch.eye(2).double().repeat_interleave(torch.tensor([3, 1]), 0)
        >>> raked(own, torch.tensor([0.5, 0.5]).double())
        tensor([0.6667, 2.0000], dtype=torch.float64)
    """
    ratio = torch.ones_like(target)
    for _ in range(RAKINGS):
        weight = own @ ratio
        filled = weight @ own / weight.sum()
        # A cluster that hardly any image is in could take any ratio at all.
        ratio = (ratio * target / filled.clamp_min(1e-6) / weight.mean()).clamp(1 / LARGEST, LARGEST)
    return ratio / (own @ ratio).mean()


def _flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).double().cpu().numpy()
