"""Fidelity and diversity of generated images in a classifier's features: Fréchet distance and neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from latentebm.checks import fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.rng import permutation

__all__ = ["Neighbourhoods", "copied_share", "frechet_distance", "neighbourhoods"]

SLACK = 1e-12  # of the largest squared norm: what double precision makes of equal distances


@dataclass(frozen=True)
class Neighbourhoods:
    """How two sets of features fill each other's neighbourhoods; 1 is ideal everywhere."""

    precision: float  # share of generated images within some real one's ball
    recall: float  # share of real images within some generated one's ball
    density: float  # mean count of real balls around a generated image, relative to its expectation
    coverage: float  # share of real images with a generated one in their ball


def frechet_distance(features: Tensor, real: Tensor) -> float:
    r"""Fréchet distance between Gaussians fitted to features (N, F) and real ones (M, F), at least two of each.

    .. math:: |\mu - \mu_r|^2 + \mathrm{tr}(\Sigma + \Sigma_r - 2(\Sigma \Sigma_r)^{1/2})

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), https://arxiv.org/abs/1706.08500

    Example:
        >>> x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(frechet_distance(x + 1, x), 2)
        2.0
    """
    if min(len(features), len(real)) < 2:
        raise fail("features", "at least 2 rows, and 2 real ones", (len(features), len(real)), "pass more images")
    identity = nn.Identity()
    identity.num_features = features.shape[1]  # type: ignore[assignment]
    size = (1, 1, features.shape[1])
    # One process of a group judges while the others wait: nothing may be gathered from them.
    metric = FrechetInceptionDistance(feature=identity, input_img_size=size, sync_on_compute=False)
    metric.set_dtype(torch.float64)
    metric.update(real.double().cpu(), real=True)
    metric.update(features.double().cpu(), real=False)
    return max(0.0, float(metric.compute()))  # rounding can fall below


def neighbourhoods(features: Tensor, real: Tensor, *, k: int = 5) -> Neighbourhoods:
    r"""Improved precision and recall, density and coverage, with balls reaching to the k-th neighbour in its own set.

    .. math:: \mathrm{precision} = \tfrac1N \sum_i 1[\exists j: x_i \in B_j], \qquad
              \mathrm{recall} = \tfrac1M \sum_j 1[\exists i: y_j \in B'_i]

    .. math:: \mathrm{density} = \tfrac{1}{kN} \sum_{ij} 1[x_i \in B_j], \qquad
              \mathrm{coverage} = \tfrac1M \sum_j 1[\exists i: x_i \in B_j]

    B are balls around real images y (M, F), B' around generated ones x (N, F), without their surface; an image is not
    its own neighbour, so a side has more than k. Where neighbours are equally far, a ball holds its surface, too, and
    density counts relative to what it holds of its own side: of features identical to the real ones it is 1.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019),
        https://arxiv.org/abs/1904.06991; Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al.,
        2020), https://arxiv.org/abs/2002.09797

    Example:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> neighbourhoods(x, x + 100)
        Neighbourhoods(precision=0.0, recall=0.0, density=0.0, coverage=0.0)
    """
    for name, rows in (("features", features), ("real", real)):
        if len(rows) <= k:
            raise fail(name, f"more than k={k} rows", len(rows), "pass more images or lower k")
    centre = real.double().cpu().mean(0)
    fake, true = features.double().cpu() - centre, real.double().cpu() - centre
    slack = SLACK * float(max(fake.square().sum(1).max(), true.square().sum(1).max()))
    around_fake, _ = _balls(fake, k, slack)
    around_real, held = _balls(true, k, slack)
    holders = torch.zeros(len(true), dtype=torch.long)  # generated images in each real ball
    recalled = torch.zeros(len(true), dtype=torch.bool)
    precise = 0
    size = chunk_size(len(true))
    for part, around in zip(fake.split(size), around_fake.split(size), strict=True):
        squared = _squared(part, true)
        inside = squared <= around_real
        precise += int(inside.any(1).sum())
        holders += inside.sum(0)
        recalled |= (squared <= around[:, None]).any(0)
    return Neighbourhoods(
        precision=precise / len(fake),
        recall=float(recalled.double().mean()),
        density=float((holders / held).sum() / len(fake)),
        coverage=float((holders > 0).double().mean()),
    )


def copied_share(features: Tensor, seen: Tensor, unseen: Tensor, *, generator: torch.Generator) -> float:
    r"""Share of draws that lie nearer to an image the method saw than to any of as many that it never saw.

    .. math:: \mathrm{mean}_i\, 1\big[\min_{s \in seen} |x_i - s| < \min_{u \in unseen} |x_i - u|\big]

    One half for a model that learned the distribution, more for one that repeats what it saw. The unseen images are
    cut at random into as many parts of M as they fill, at least one, and the mean is over these parts.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan et al., 2020),
        https://arxiv.org/abs/2004.05675

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> seen, unseen, fresh = (torch.randn(n, 2, generator=g) for n in (20, 2_000, 1_000))
        >>> copied_share(seen, seen, unseen, generator=g)
        1.0
        >>> abs(copied_share(fresh, seen, unseen, generator=g) - 0.5) < 0.1
        True
    """
    m = len(seen)
    if not 0 < m <= len(unseen):
        raise fail("unseen", f"at least {m} rows, as many as are seen, and one of each", len(unseen), "pass more")
    parts = len(unseen) // m
    others = unseen[permutation(len(unseen), generator, unseen.device)[: parts * m]]

    def nearer(x: Tensor) -> Tensor:
        return torch.cdist(x, seen).amin(1, keepdim=True) < torch.cdist(x, others).view(len(x), parts, m).amin(2)

    return float(in_chunks(nearer, features, chunk_size(len(others), features.device)).double().mean())


def _balls(x: Tensor, k: int, slack: float) -> tuple[Tensor, Tensor]:
    """Largest squared distance within each row's ball (N,), and how many rows of its own side are within it (N,)."""
    limits, held = [], []
    for part in x.split(chunk_size(len(x))):
        squared = _squared(part, x)
        kth = squared.topk(k + 1, largest=False).values[:, -1]  # the row itself is the first
        open_, closed = ((squared <= kth[:, None] + way * slack).sum(1) for way in (-1, 1))
        tied = open_ != k
        limits.append(torch.where(tied, kth + slack, kth - slack))
        held.append(torch.where(tied, closed, open_))
    return torch.cat(limits), torch.cat(held)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M) of centred rows in double precision: the one routine, whose roundings are alike."""
    return x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
