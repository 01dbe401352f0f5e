"""Cells in feature space that a model's own draws suggest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentebm.models.seen.cell_energy import memberships
from latentebm.tilting.few.share_ratios import TINY, Array

__all__ = ["Cells"]

CLUSTERINGS, CELLS, PER_CELL = 8, 20, 10  # cells of a clustering, at most one for so many draws
SOFTNESS = 0.2  # width of the passage between cells, in mean squared distances of draws to their centres
LEAST = 0.01  # share of a cell that penalties count at least, so that no empty one gets a large weight
COMPONENTS = 32  # principal components in which the cells lie
KEPT = 60  # components of the memberships
SIGMAS = 6  # a feature's spread is its standard deviation, or this part of its range where that is more


@dataclass(frozen=True)
class Cells:
    """Several clusterings of the model's draws, and what the draws' memberships vary in.

    Attributes:
        mean: of the features, (F,).
        axes: from features to principal components, (F, K).
        centres: of the cells, (R, C, K).
        widths: of the passage between cells, (R,).
        share: of the draws in each cell, (R C,).
        basis: from memberships to the columns of a fit, (R C, J); a column's square is the weight that the draws'
            shares have in it, so that a ridge on it is so many items in every clustering at the draws' own shares.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(500, 3))
        >>> cells = Cells.of(draws, np.random.default_rng(0))
        >>> cells.centres.shape, cells.columns(draws).shape
        (torch.Size([8, 20, 3]), (500, 60))
    """

    mean: Array
    axes: Array
    centres: Tensor
    widths: Tensor
    share: Array
    basis: Array

    @classmethod
    def of(cls, draws: Array, rng: np.random.Generator) -> Cells:
        """The cells of draws' features (N, F)."""
        mean, axes = draws.mean(0), _axes(draws)
        points = (draws - mean) @ axes
        centres, widths = _clusterings(points, rng)
        belongs = _belongs(points, centres, widths)
        share = belongs.mean(0)
        scale = np.sqrt(CLUSTERINGS * np.maximum(share, LEAST))
        weighted = (belongs - share) / scale
        basis = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1][:, :KEPT] / scale[:, None]
        return cls(mean, axes, centres, widths, share, basis)

    def columns(self, features: Array) -> Array:
        """Columns (N, J) of features (N, F), of mean zero at the draws."""
        points = (features - self.mean) @ self.axes
        return np.asarray((_belongs(points, self.centres, self.widths) - self.share) @ self.basis)

    def sharpened(self, draws: Array, log_weight: Array, rng: np.random.Generator) -> Array:
        """Log-weights (N,) of draws (N, F), averaged in the hard cells of a new clustering, which are not the fit's."""
        belongs = _k_means((draws - self.mean) @ self.axes, self.centres.shape[1], rng).labels_
        weight, size = np.bincount(belongs, np.exp(log_weight - log_weight.max())), np.bincount(belongs)
        return np.asarray(np.log(np.maximum(weight, TINY) / np.maximum(size, 1))[belongs])

    def heights(self, theta: Array) -> Tensor:
        """Log-weights (R, C) of the cells, from those of the columns (J,)."""
        return torch.from_numpy(self.basis @ theta).view(self.centres.shape[:2])


def _axes(draws: Array) -> Array:
    """Principal components (F, K) of scaled features; one that is mostly constant counts by its range."""
    spread = np.maximum(draws.std(0), np.ptp(draws, axis=0) / SIGMAS)
    used = spread > 1e-6 * spread.max()
    unit = np.where(used, 1 / np.where(used, spread, 1), 0)
    standard = (draws - draws.mean(0)) * unit
    values, vectors = np.linalg.eigh(standard.T @ standard)
    kept = values[::-1][:COMPONENTS] > TINY * values[-1]
    return np.asarray(unit[:, None] * vectors[:, ::-1][:, :COMPONENTS][:, kept])


def _clusterings(points: Array, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Centres (R, C, K) of k-means from several starts, and widths (R,)."""
    count = max(2, min(CELLS, len(points) // PER_CELL))
    centres, widths = [], []
    for _ in range(CLUSTERINGS):
        found = _k_means(points, count, rng)
        centres.append(found.cluster_centers_)
        widths.append(max(SOFTNESS * found.inertia_ / len(points), 1e-3 * points.var(0).sum(), TINY))
    return torch.from_numpy(np.stack(centres)), torch.tensor(widths, dtype=torch.double)


def _k_means(points: Array, count: int, rng: np.random.Generator) -> Any:
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Number of distinct clusters")  # features of few values
        return KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit(points)


def _belongs(points: Array, centres: Tensor, widths: Tensor) -> Array:
    return memberships(torch.from_numpy(points), centres, widths).flatten(1).numpy()
