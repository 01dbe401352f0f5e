"""Class shares of generated images: as a classifier reads them, corrected for its confusions, against a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.functional.regression import kl_divergence

from latentebm.checks import check_int, fail
from latentebm.rng import draw_seed

__all__ = [
    "bootstrap_intervals",
    "class_shares",
    "confusion_rates",
    "corrected_shares",
    "kl_to_target",
    "l2_to_target",
    "total_variation",
]

WEAK = 0.1  # directions of the confusion matrix with a smaller singular value are left as observed


def class_shares(predicted: Tensor, classes: Sequence[int]) -> list[float]:
    """Share of predictions (N,) in each of `classes`, 0 for one never predicted; what is missing to one is elsewhere.

    Example:
        >>> class_shares(torch.tensor([0, 0, 1, 7]), [0, 1])
        [0.5, 0.25]
    """
    if not len(predicted):
        raise fail("predicted", "at least one prediction", 0, "draw some images first")
    return [float((predicted == k).double().mean()) for k in classes]


def confusion_rates(predicted: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    r"""How often a classifier reads class i as class j, from labelled images.

    .. math:: C_{ij} = P(\text{read } j \mid \text{true } i)

    C is (K, K); a class without a labelled image counts as always read correctly.

    Example:
        >>> confusion_rates(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    if len(predicted) != len(labels):
        expected = f"{len(labels)} predictions, one per label"
        raise fail("predicted", expected, len(predicted), "pass both of the same images")
    counts = multiclass_confusion_matrix(predicted.cpu(), labels.cpu(), n_classes).double()
    seen = counts.sum(1, keepdim=True)
    return torch.where(seen > 0, counts / seen.clamp_min(1), torch.eye(n_classes, dtype=torch.double))


def corrected_shares(observed: Sequence[float] | np.ndarray, confusion: Tensor) -> list[float]:
    r"""Shares s (K,) that a classifier with known confusions C (K, K) must have seen to read the observed ones, p (K,).

    .. math:: \min_{s \ge 0,\ \sum_i s_i = 1} \big|C^\top s - p\big|

    Generated images are taken to be confused as often as the labelled real ones were. Where the classifier can hardly
    tell classes apart (singular values of C below 0.1), the difference can't be recovered: that direction is left as
    observed, so that an ill-conditioned C falls back on the raw shares instead of magnifying their noise.

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002); Counting Positives
        Accurately Despite Inaccurate Classification (Forman, 2005)

    Example:
        >>> confusion = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> [round(s, 6) for s in corrected_shares([0.55, 0.45], confusion)]
        [0.5, 0.5]
    """
    p, c = np.asarray(observed, dtype=np.float64), confusion.double().cpu().numpy()
    if c.shape != (len(p), len(p)):
        raise fail("confusion", f"shape ({len(p)}, {len(p)})", c.shape, "pass the confusion_rates of the same classes")
    left, size, right = np.linalg.svd(c.T)
    weak = size < WEAK
    # The system in its singular directions; weak ones say "as observed". The last row holds the sum at one.
    system = np.where(weak[:, None], right, size[:, None] * right)
    wanted = np.where(weak, right @ p, left.T @ p)
    heavy = 1e3
    solution, _ = nnls(np.vstack([system, np.full((1, len(p)), heavy)]), np.append(wanted, heavy))
    return (solution / solution.sum()).tolist()


def total_variation(shares: Sequence[float] | np.ndarray, target: Sequence[float]) -> float:
    r"""Total variation between class shares and a target, mass outside the target's classes included.

    .. math:: \mathrm{TV} = \tfrac12 \Big(\sum_k |p_k - t_k| + 1 - \sum_k p_k\Big)

    Example:
        >>> total_variation([0.5, 0.25], [0.5, 0.5])
        0.25
    """
    p, t = _aligned(shares, target)
    return 0.5 * float((p - t).abs().sum() + _rest(p))


def l2_to_target(shares: Sequence[float] | np.ndarray, target: Sequence[float]) -> float:
    r"""Euclidean distance between class shares and a target, mass outside the target's classes as one more class.

    .. math:: \sqrt{\sum_k (p_k - t_k)^2 + \big(1 - \sum_k p_k\big)^2}

    This is the fairness discrepancy of Choi et al. (2020), whom `importance_weighted` cites.

    Example:
        >>> round(l2_to_target([0.5, 0.0], [0.5, 0.5]), 4)
        0.7071
    """
    p, t = _aligned(shares, target)
    return float(((p - t).square().sum() + _rest(p).square()).sqrt())


def kl_to_target(shares: Sequence[float] | np.ndarray, target: Sequence[float], n: int) -> float:
    r"""Kullback–Leibler divergence of the target from the shares of `n` draws, finite where a class is absent.

    .. math:: \mathrm{KL}(t \,\|\, \tilde p) = \sum_k t_k \log \frac{t_k}{\tilde p_k}, \qquad
              \tilde p_k = \frac{n p_k + \frac12}{n + \frac{K + 1}{2}}

    Half a draw is added to each of the K classes and to the rest (Jeffreys, 1946), so that a class without draws costs
    about :math:`t_k \log(2 n t_k)` nats instead of infinitely many; classes of target zero cost nothing.

    Example:
        >>> round(kl_to_target([0.5, 0.5], [0.5, 0.5], 10**6), 5), round(kl_to_target([1.0, 0.0], [0.5, 0.5], 100), 2)
        (0.0, 1.97)
    """
    p, t = _aligned(shares, target)
    check_int("n", n)
    smooth = (n * torch.cat([p, _rest(p)[None]]) + 0.5) / (n + (len(p) + 1) / 2)
    return float(kl_divergence(torch.cat([t, t.new_zeros(1)])[None], smooth[None]))


def bootstrap_intervals(
    observed: Sequence[float] | np.ndarray,
    n: int,
    statistics: Callable[[np.ndarray], Sequence[float] | np.ndarray],
    *,
    generator: torch.Generator,
    resamples: int = 1000,
) -> list[tuple[float, float]]:
    r"""Percentile bootstrap intervals (95 %) of J statistics of the shares (K,) of `n` draws, from one bootstrap.

    .. math:: [T^*_{j,(2.5\%)}, T^*_{j,(97.5\%)}], \quad T^*_j = T_j(p^*), \quad n p^* \sim \mathrm{Multinomial}(n, p)

    References:
        An Introduction to the Bootstrap (Efron and Tibshirani, 1993).

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> (low, high), _ = bootstrap_intervals([0.6, 0.4], 10_000, lambda p: p, generator=rng)
        >>> low < 0.6 < high
        True
    """
    check_int("n", n)
    rng = np.random.default_rng(draw_seed(generator))
    full = np.asarray(observed, dtype=np.float64)
    samples = rng.multinomial(n, full / full.sum(), size=resamples) / n
    low, high = np.quantile([statistics(row) for row in samples], [0.025, 0.975], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _aligned(shares: Sequence[float] | np.ndarray, target: Sequence[float]) -> tuple[Tensor, Tensor]:
    if len(shares) != len(target):
        raise fail("shares", f"{len(target)} values, one per target class", len(shares), "pass one share per class")
    return torch.as_tensor(shares, dtype=torch.double), torch.as_tensor(target, dtype=torch.double)


def _rest(shares: Tensor) -> Tensor:
    return (1 - shares.sum()).clamp_min(0)
