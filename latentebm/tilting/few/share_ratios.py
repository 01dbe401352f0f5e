"""Shares of a reference in bins of a score, to those of draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TINY", "Array", "binned_heights", "edges_of", "heights"]

Array = NDArray[Any]
TINY = 1e-9
TIED = 1e-6  # standard deviations within which scores are the same


def heights(counts: Array, share: Array, shrinkage: float) -> Array:
    """Log-ratios (…, K) of the reference's shares to the draws', of mean weight one.

    Arguments:
        counts: reference items in every bin, (…, K).
        share: of the draws in every bin, (K,).
        shrinkage: pseudo-items in every bin, at the draws' shares.

    Example:
        >>> np.exp(heights(np.array([30.0, 10.0]), np.array([0.5, 0.5]), 0.0)).round(2).tolist()
        [1.5, 0.5]
    """
    share = np.maximum(share, TINY) / np.maximum(share, TINY).sum()
    pseudo = shrinkage * len(share)
    ratio = (counts + pseudo * share) / (counts.sum(-1, keepdims=True) + pseudo) / share
    return np.asarray(np.log(ratio / (share * ratio).sum(-1, keepdims=True)))


def binned_heights(real: Array, drawn: Array, edges: Array, weight: Array, shrinkage: float) -> Array:
    """Log-ratios (K,) in the bins between edges (K − 1,) of scores: real (M,), drawn (N,) with weights (N,)."""
    bins = len(edges) + 1
    share = np.bincount(np.searchsorted(edges, drawn), weight, bins)
    return heights(np.bincount(np.searchsorted(edges, real), minlength=bins), share, shrinkage)


def edges_of(scores: Array, bins: int) -> Array:
    """Edges (K − 1,) of bins with equal shares of standardised scores (N,), each half way to the next higher score.

    Example:
        >>> edges_of(np.array([0.0, 0.0, 0.0, 1.0]), 2)  # between the values, not on one
        array([0.5])
    """
    ordered = np.sort(scores)
    low = np.quantile(ordered, np.arange(1, bins) / bins, method="lower")
    above = np.searchsorted(ordered, low + TIED)
    return np.asarray((low + np.append(ordered, ordered[-1] + 2 * TIED)[above]) / 2)
