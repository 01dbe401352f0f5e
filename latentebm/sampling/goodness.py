"""Do draws follow a potential whose normalisation is unknown, and can a classifier tell two samples apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from latentebm.checks import check_finite, check_int, check_points, check_rng, fail
from latentebm.rng import integers, permutation
from latentebm.sampling.target import Potential, Target, piecewise_constant, value_and_grad

__all__ = ["FEWEST", "SteinTest", "TwoSampleTest", "classifier_test", "stein_test"]

LANDMARKS = 200  # radial features of the default classifier
RIDGE = 10.0  # its penalty
Scores = Callable[[Tensor, Tensor, Tensor], Tensor]  # rows to train on, their labels (·, P), rows: scores (·, P)
FEWEST = 10  # draws of each sample: five folds of fewer have nothing to learn from


class SteinTest(NamedTuple):
    """Kernel Stein discrepancy of draws, squared, and the p-value of their following the potential."""

    discrepancy: float
    p_value: float


class TwoSampleTest(NamedTuple):
    """Area under the ROC curve of a classifier of two samples, ½ where they are alike, and its p-value."""

    auc: float
    p_value: float


def stein_test(target: Potential, x: Tensor, *, generator: torch.Generator, bootstraps: int = 999) -> SteinTest:
    r"""Test whether independent draws follow e^{−U}, by its gradient alone: Z is not needed.

    .. math:: \mathrm{KSD}^2 = \frac1{n(n-1)} \sum_{i \ne j} \big(s_i^\top s_j\, k + s_i^\top \nabla_j k
        + s_j^\top \nabla_i k + \mathrm{tr}\, \nabla_i \nabla_j k\big), \qquad
        s = -\nabla U, \quad k = (1 + |x_i - x_j|^2 / m)^{-1/2}

    m is the median squared distance. The p-value is that of a wild bootstrap: random signs on the draws. A gradient
    does not see how much mass lies on modes far apart; :func:`classifier_test` against other draws does.
    Copies of a draw, as resampling from a small pool makes, count as a fault. n² numbers are held.

    Arguments:
        target: a tilt, or a potential (N, *event) to (N,), in nats.
        x: draws, (n, *event).
        generator: source of the signs.
        bootstraps: how many; the least p-value is 1/(bootstraps + 1).

    Raises:
        ValueError: draws that are few, not finite or all alike, or a potential without a finite gradient at them.

    References:
        A Kernelized Stein Discrepancy for Goodness-of-fit Tests (Liu, Lee and Jordan, 2016),
        https://arxiv.org/abs/1602.03253; Measuring Sample Quality with Kernels (Gorham and Mackey, 2017),
        https://arxiv.org/abs/1703.01717, whose kernel it is

    Example:
        >>> g, normal = torch.Generator().manual_seed(0), lambda x: x.square().sum(1) / 2
        >>> x = torch.randn(300, 2, generator=g)
        >>> stein_test(normal, x, generator=g).p_value > 0.05, stein_test(normal, 1.5 * x, generator=g).p_value
        (True, 0.001)
    """
    check_int("bootstraps", bootstraps)
    check_rng(generator)
    _enough("draws", check_points("draws", x.detach()))
    matrix = _stein_matrix(x, _score(target, x.detach()))
    n = len(matrix)
    sign = integers(2, (n, bootstraps), generator, "cpu").double() * 2 - 1
    drawn = (sign * (matrix @ sign)).sum(0)
    total = matrix.sum()
    return SteinTest(float(total) / (n * (n - 1)), _p_value(total, drawn))


def _score(target: Potential, x: Tensor) -> Tensor:
    """Minus the gradient of a potential at draws, (n, d), in double precision."""
    tilted = hasattr(target, "energy") and hasattr(target, "log_base")
    if tilted and piecewise_constant(cast(Target, target), x):
        fix = "compare with other draws by classifier_test or agreement"
        raise fail("energy", "a differentiable one, whose gradient the test reads", "a piecewise constant one", fix)
    value, grad = value_and_grad(target, x)
    check_finite("potential", value), check_finite("gradient", grad)
    return -grad.flatten(1).double().cpu()


def _stein_matrix(x: Tensor, score: Tensor) -> Tensor:
    """The Stein kernel of all pairs of draws, (n, n), its diagonal left out."""
    x = x.detach().flatten(1).double().cpu()
    x = x - x.mean(0)
    distance = torch.cdist(x, x).square()
    scale = float(distance[~torch.eye(len(x), dtype=torch.bool)].median())
    if not scale > 0:
        raise fail("draws", "mostly distinct ones", "half of the pairs alike", "let the chains move, or widen the pool")
    q = 1 + distance / scale
    own = (score * x).sum(1)
    cross = own[:, None] - score @ x.T  # s_i·(x_i − x_j)
    trace = x.shape[1] / scale * q**-1.5 - 3 * distance / scale**2 * q**-2.5
    matrix = (score @ score.T) * q**-0.5 + (cross + cross.T) / scale * q**-1.5 + trace
    return matrix.fill_diagonal_(0)


def classifier_test(
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    classifier: Any = None,
    folds: int = 5,
    permutations: int = 999,
) -> TwoSampleTest:
    r"""Test whether two samples have one distribution, by how well a classifier of held-out draws tells them apart.

    .. math:: \mathrm{AUC} = P\big(f(x) > f(y)\big) + \tfrac12 P\big(f(x) = f(y)\big)

    Every draw is scored by a classifier trained without its fold. The p-value is the share of random relabellings that
    reach as high an AUC, the classifier trained again under each, so that it is exact for any number of draws.

    Arguments:
        x: draws of one sampler, (n, *event), independent.
        y: draws of the other, (m, *event), independent.
        generator: source of folds, landmarks and relabellings.
        classifier: a scikit-learn classifier, refitted `folds` × `permutations` times (pass fewer of them); None for
            ridge regression on 200 radial features, which gives the scores of all relabellings at once.
        folds: of the cross-validation.
        permutations: how many; the least p-value is 1/(permutations + 1).

    Raises:
        ValueError: the samples' shapes do not match, one has fewer than 10 draws, or a value is not finite.

    References:
        Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(300, 2, generator=g), torch.randn(300, 2, generator=g)
        >>> classifier_test(x, y, generator=g).p_value > 0.05, classifier_test(x, 1.5 * y, generator=g).p_value
        (True, 0.001)
    """
    from scipy.stats import rankdata  # here, since it takes a second

    check_int("permutations", permutations)
    check_int("folds", folds, low=2)
    check_rng(generator)
    if x.ndim < 2 or x.shape[1:] != y.shape[1:]:
        raise fail("samples", "(n, D) and (m, D)", (tuple(x.shape), tuple(y.shape)), "pass matching draws")
    for sample in (x, y):
        _enough("samples", check_finite("samples", sample))
    pooled = torch.cat([x, y]).detach().cpu().flatten(1).double()
    pooled = (pooled - pooled.mean(0)) / pooled.std(0).clamp_min(1e-12)
    order = [permutation(len(pooled), generator, "cpu") for _ in range(permutations)]
    first = torch.stack([torch.arange(len(pooled)), *order], 1) < len(x)  # a column for each labelling
    scores = _radial(pooled, generator) if classifier is None else _estimator(pooled, classifier)
    score = torch.empty(first.shape, dtype=torch.float64)
    for part in permutation(len(pooled), generator, "cpu").chunk(folds):
        rest = torch.ones(len(pooled), dtype=torch.bool).index_fill_(0, part, False).nonzero()[:, 0]
        score[part] = scores(rest, first[rest], part)
    ranks = torch.from_numpy(rankdata(score.numpy(), axis=0))
    n, m = len(x), len(y)
    auc = ((ranks * first).sum(0) - n * (n + 1) / 2) / (n * m)
    return TwoSampleTest(float(auc[0]), _p_value(auc[0], auc[1:]))


def _radial(pooled: Tensor, generator: torch.Generator) -> Scores:
    """Ridge regression on radial features, for all labellings in one solution."""
    landmarks = pooled[permutation(len(pooled), generator, "cpu")[:LANDMARKS]]
    distance = torch.cdist(pooled, landmarks)
    features = torch.exp(-distance / distance.median().clamp_min(1e-12))
    features = features - features.mean(0)

    def scores(rest: Tensor, first: Tensor, part: Tensor) -> Tensor:
        phi = features[rest]
        gram = phi.T @ phi + RIDGE * torch.eye(phi.shape[1], dtype=phi.dtype)
        return features[part] @ torch.linalg.solve(gram, phi.T @ (first.double() - 0.5))

    return scores


def _estimator(pooled: Tensor, classifier: Any) -> Scores:
    """A scikit-learn classifier, fitted to every labelling in turn."""
    from sklearn.base import clone

    points = pooled.numpy()

    def scores(rest: Tensor, first: Tensor, part: Tensor) -> Tensor:
        found = []
        for label in first.T.numpy():
            fitted = clone(classifier).fit(points[rest], label)
            found.append(fitted.predict_proba(points[part])[:, 1])
        return torch.from_numpy(np.stack(found, 1)).double()

    return scores


def _enough(name: str, x: Tensor) -> None:
    if len(x) < FEWEST:
        raise fail(name, f"at least {FEWEST}", len(x), "draw more")


def _p_value(found: Tensor, drawn: Tensor) -> float:
    return (1 + int((drawn >= found).sum())) / (len(drawn) + 1)
