"""Shares of a reference in bins of a score, to those of draws."""

from __future__ import annotations

import numpy as np

from latentebm.tilting.few.directions import TINY, Array

__all__ = ["binned_heights", "heights"]


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
