"""Are chains mixed, how many independent draws are they worth, and do two samplers agree."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentebm.checks import check_finite, check_int, check_rng, fail
from latentebm.rng import permutation
from latentebm.sampling.goodness import FEWEST, classifier_test

__all__ = ["Agreement", "agreement", "bfmi", "ess_bulk", "ess_tail", "max_rhat", "rhat", "stuck"]

STUCK, MANY = 1e-3, 100  # acceptance below which chains stand still; places from which it is seen


def rhat(trace: Tensor) -> Tensor:
    r"""Rank-normalised split :math:`\hat R` of each coordinate of paths (draws, chains, *event), bulk or folded.

    The larger of the two counts; below 1.01 the chains agree. Fewer than 4 draws are refused.

    References:
        Rank-normalization, folding, and localization: an improved R̂ (Vehtari et al., 2021),
        https://arxiv.org/abs/1903.08008

    Example:
        >>> trace = torch.randn(200, 4, 3, generator=torch.Generator().manual_seed(0))
        >>> bool((rhat(trace) < 1.02).all()), bool((rhat(trace + torch.arange(4.0)[:, None]) > 1.2).all())
        (True, True)
    """
    return _per_coordinate(trace, "rhat")


def ess_bulk(trace: Tensor) -> Tensor:
    """Bulk effective sample size of each coordinate of paths (draws, chains, *event), in draws.

    Example:
        >>> trace = torch.randn(500, 4, 1, generator=torch.Generator().manual_seed(0))
        >>> 1500 < ess_bulk(trace).item() < 2700
        True
    """
    return _per_coordinate(trace, "ess", method="bulk")


def ess_tail(trace: Tensor) -> Tensor:
    """Effective sample size of each coordinate's 5 % and 95 % quantiles, the smaller, of paths, in draws."""
    return _per_coordinate(trace, "ess", method="tail", prob=(0.05, 0.95))


def bfmi(energy: Tensor) -> Tensor:
    r"""Energy Bayesian fraction of missing information of each chain, from its Hamiltonians (draws, chains).

    .. math:: \mathrm{BFMI} = \frac{\sum_t (H_t - H_{t-1})^2}{\sum_t (H_t - \bar H)^2}

    Below 0.3 the momentum resampling explores the energies too slowly.

    References:
        Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo (Betancourt, 2016),
        https://arxiv.org/abs/1604.00695

    Example:
        >>> 1.5 < bfmi(torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))).item() < 2.5
        True
    """
    h = energy.detach().double()
    return h.diff(dim=0).square().sum(0) / (h - h.mean(0)).square().sum(0)


def max_rhat(trace: Tensor) -> float | None:
    """Largest R̂ over the coordinates of paths (draws, chains, *event).

    None for fewer than 4 draws or 2 chains, and where a coordinate stands still in all chains.
    """
    if trace.shape[0] < 4 or trace.shape[1] < 2 or _still(trace):
        return None
    largest = float(rhat(trace).max())
    return largest if math.isfinite(largest) else None


def stuck(acceptance: float, trace: Tensor | None = None) -> dict[str, Any]:
    """What diagnostics say of chains that hardly move, or whose paths (draws, chains, *event) stand; else nothing.

    Example:
        >>> stuck(0.6), stuck(0.0)
        ({}, {'reliable': False, 'why': 'the chains hardly move: acceptance 0'})
        >>> stuck(1.0, torch.zeros(50, 2, 1))
        {'reliable': False, 'why': 'the chains hardly move: a coordinate stands still in all of them'}
    """
    places = 0 if trace is None else trace.shape[0] * trace.shape[1]
    still = trace is not None and places >= MANY and _still(trace)
    if acceptance >= STUCK and not still:
        return {}
    seen = f"acceptance {acceptance:.3g}" if acceptance < STUCK else "a coordinate stands still in all of them"
    return {"reliable": False, "why": f"the chains hardly move: {seen}"}


def _still(trace: Tensor) -> bool:
    """Whether a coordinate keeps its value in all chains."""
    return bool((trace == trace[0]).all(0).all(0).any())


class Agreement(NamedTuple):
    """Energy distance of two samples, a classifier's AUC, and the permutation p-value of each."""

    distance: float
    p_value: float
    auc: float = math.nan
    classifier_p_value: float = math.nan


def agreement(x: Tensor, y: Tensor, *, generator: torch.Generator, permutations: int = 999) -> Agreement:
    r"""Test whether samples (n, D) and (m, D) have one distribution, by the energy distance under permuted labels.

    .. math:: D^2 = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    Draws are independent and finite. All pairwise distances are held, (n + m)² numbers: a few thousand draws of each
    suffice. The least p-value is 1/(permutations + 1). Of 10 draws or more the classifier of
    :func:`~latentebm.sampling.goodness.classifier_test` is asked as well.

    References:
        Energy statistics: a class of statistics based on distances (Székely and Rizzo, 2013)

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(300, 2, generator=g), torch.randn(300, 2, generator=g)
        >>> agreement(x, y, generator=g).p_value > 0.01, agreement(x, y + 1, generator=g).p_value
        (True, 0.001)
    """
    check_int("permutations", permutations)
    check_rng(generator)
    if x.ndim < 2 or x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 2:
        raise fail("samples", "(n, D) and (m, D), n and m ≥ 2", (tuple(x.shape), tuple(y.shape)), "pass matching draws")
    pooled = check_finite("samples", torch.cat([x, y])).detach().cpu().flatten(1).float()
    distance = torch.cdist(pooled, pooled)
    order = torch.stack([permutation(len(pooled), generator, "cpu") for _ in range(permutations)])
    first = torch.zeros(len(pooled), permutations + 1)
    first[: len(x), 0] = 1
    first[:, 1:].scatter_(0, order[:, : len(x)].T, 1.0)
    statistics = _energy_distance(distance, first)
    p = (1 + int((statistics[1:] >= statistics[0]).sum())) / (permutations + 1)
    enough = min(len(x), len(y)) >= FEWEST
    two = classifier_test(x, y, generator=generator, permutations=permutations) if enough else (math.nan, math.nan)
    return Agreement(float(statistics[0]), p, *two)


def _energy_distance(distance: Tensor, first: Tensor) -> Tensor:
    """Energy distance for each column of memberships (n + m, P): quadratic forms in one matrix product each."""
    second = 1 - first
    n, m = first.sum(0), second.sum(0)
    to_first, to_second = distance @ first, distance @ second
    between = (second * to_first).sum(0) / (n * m)
    return 2 * between - (first * to_first).sum(0) / (n * n) - (second * to_second).sum(0) / (m * m)


def _per_coordinate(trace: Tensor, statistic: str, **options: object) -> Tensor:
    if trace.ndim < 2 or trace.shape[0] < 4:
        raise fail("trace", "shape (draws, chains, …) with 4 draws or more", tuple(trace.shape), "keep a longer path")
    paths = trace.detach().double().cpu().numpy()
    from arviz_stats.base import array_stats  # here, since it takes half a second

    with np.errstate(divide="ignore", invalid="ignore"):  # of chains that stand still
        found = getattr(array_stats, statistic)(paths, chain_axis=1, draw_axis=0, **options)
    return torch.as_tensor(found)
