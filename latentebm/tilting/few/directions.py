"""Directions in features that a model's own draws suggest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.cluster.hierarchy import linkage

from latentebm.tilting.few.share_ratios import TINY, Array, edges_of

__all__ = ["Dictionary"]

COMPONENTS, ALONE = 12, 64  # principal components beside groups of features, and without
MOST = 256  # features that are grouped, not only rotated
LEARNED_FROM = 4_000  # draws that directions are learned from


@dataclass(frozen=True)
class Dictionary:
    """Directions in features that the model's own draws suggest: each feature, groups of like ones, components.

    Attributes:
        mean: of the features, (F,).
        directions: in columns, (F, J), whose scores have unit standard deviation.
        scores: of the draws, (N, J).

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(500, 3))
        >>> Dictionary.of(draws).directions.shape  # three features, two groups, three components
        (3, 8)
    """

    mean: Array
    directions: Array
    scores: Array
    _binned: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    @classmethod
    def of(cls, draws: Array) -> Dictionary:
        """The dictionary of draws' features (N, F); beyond 256 features it holds components alone."""
        mean, scale = draws.mean(0), draws.std(0)
        used = scale > 1e-6 * scale.max()
        unit = np.where(used, 1 / np.where(used, scale, 1), 0)
        standard = ((draws - mean) * unit)[:LEARNED_FROM]
        groups = _groups(standard, np.flatnonzero(used)) if used.sum() <= MOST else []
        components = _components(standard, ALONE)
        directions = unit[:, None] * np.stack([*groups, *components[: COMPONENTS if groups else ALONE]], 1)
        scores = (draws - mean) @ directions
        spread = np.maximum(scores.std(0), TINY)
        return cls(mean, directions / spread, scores / spread)

    def binned(self, bins: int) -> tuple[Array, Array]:
        """Edges (K − 1, J) of bins with equal shares of the draws, and the bin of every score (N, J); made once."""
        if bins not in self._binned:
            edges = np.stack([edges_of(s, bins) for s in self.scores.T], 1)
            where = [np.searchsorted(e, s) for e, s in zip(edges.T, self.scores.T, strict=True)]
            self._binned[bins] = edges, np.stack(where, 1)
        return self._binned[bins]


def _groups(standard: Array, used: Array) -> list[Array]:
    """Means of features that go together, from each by itself to all, by average linkage of correlations."""
    members: list[list[int]] = [[int(j)] for j in used]
    if len(used) > 1:
        for a, b, *_ in linkage(standard[:, used].T, "average", metric="correlation"):
            members.append(members[int(a)] + members[int(b)])
    return [np.isin(np.arange(standard.shape[1]), group).astype(float) for group in members]


def _components(standard: Array, count: int) -> list[Array]:
    values, vectors = np.linalg.eigh(standard.T @ standard)
    kept = values[::-1][:count] > 1e-9 * values[-1]
    return list(vectors[:, ::-1][:, :count][:, kept].T)
