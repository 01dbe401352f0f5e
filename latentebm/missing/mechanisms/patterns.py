"""Multivariate amputation: whole patterns of columns go, with probabilities set by weighted scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from latentebm.checks import fail
from latentebm.missing.mechanisms.mechanism import Array, LinkedMechanism, Removal, standard_score
from latentebm.missing.mechanisms.table import Table

__all__ = ["Patterns"]


@dataclass(frozen=True)
class Patterns(LinkedMechanism):
    r"""Amputation by patterns: each row is a candidate for one pattern k, and loses all of its columns or none.

    .. math:: P(\text{row } i \text{ falls to } k) = f_k\,F(a_k + b \textstyle\sum_j w_{kj} z_{ij})

    Weights decide the mechanism: all zero is MCAR, weights on columns the pattern keeps are MAR, weights on columns it
    removes are MNAR. The intercepts :math:`a_k` are solved so that the expected share of missing cells, among the
    columns any pattern removes, is the rate.

    Arguments:
        patterns: rows of 0 (goes missing) and 1 (stays), shape (P, D).
        frequencies: f (P,), summing to 1; equal by default.
        weights: w (P, D); by default 1 on what the pattern keeps (MAR).
        kind, direction, slope: as in :class:`LinkedMechanism`, of the weighted scores.

    References:
        Generating missing values for simulation purposes: a multivariate amputation procedure (Schouten, Lugtig and
        Vink, 2018), https://doi.org/10.1080/00949655.2018.1491577

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> X = np.random.default_rng(0).normal(size=(1000, 3))
        >>> _, mask = make_missing(X, Patterns([[1, 0, 0], [0, 1, 1]]), rate=0.2, random_state=0)
        >>> bool((mask[:, 1] == mask[:, 2]).all()), round(1 - float(mask.mean()), 1)
        (True, 0.2)
    """

    patterns: Sequence[Sequence[int]]
    frequencies: Sequence[float] | None = None
    weights: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = np.asarray(self.patterns)
        if kept.ndim != 2 or not np.isin(kept, (0, 1)).all() or (kept == 1).all(axis=1).any():
            raise fail("patterns", "rows of 0 and 1, each with a 0", self.patterns, "write 0 where a cell goes missing")
        if self.weights is not None and np.shape(self.weights) != kept.shape:
            fix = "pass one weight per pattern and column"
            raise fail("weights", f"shape {kept.shape}", np.shape(self.weights), fix)
        f = self._frequencies()
        if f.shape != kept.shape[:1] or (f < 0).any() or abs(f.sum() - 1) > 1e-9:
            raise fail("frequencies", f"{len(kept)} shares that sum to 1", self.frequencies, "divide them by their sum")

    def _frequencies(self) -> Array:
        count = len(self.patterns)
        return np.full(count, 1 / count) if self.frequencies is None else np.asarray(self.frequencies, dtype=float)

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each pattern's columns with the rows that fall to it."""
        kept = np.asarray(self.patterns)
        if kept.shape[1] != table.shape[1]:
            raise fail("patterns", f"{table.shape[1]} columns, as X", kept.shape[1], "pass one 0 or 1 per column")
        for j in np.flatnonzero((kept == 0).any(axis=0)):
            if not table.seen[j].all():
                # Whole rows are hit: no share of them meets a rate among the cells that are still there.
                raise fail("X", "complete columns where patterns remove", f"NaN in column {j}", "fill or drop them")
        share = self._row_share(kept, self.needs(rate))
        weights = kept if self.weights is None else np.asarray(self.weights, dtype=float)
        candidate = rng.choice(len(kept), size=table.shape[0], p=self._frequencies())
        uniform = rng.random(table.shape[0])
        total = self._weighted(table, weights, candidate)
        for k, pattern in enumerate(kept):
            rows = candidate == k
            p = np.zeros(len(rows))
            p[rows] = self.chances(standard_score(total[rows], self.direction)[0], share)
            yield [int(j) for j in np.flatnonzero(pattern == 0)], uniform < p

    def _row_share(self, kept: np.ndarray, rate: float) -> float:
        """Share of rows to hit: the patterns fix how many cells a row loses."""
        touched = int((kept == 0).any(axis=0).sum())
        per_row = float(self._frequencies() @ (kept == 0).sum(axis=1))
        share = rate * touched / per_row
        if share > 1:
            raise fail("rate", f"at most {per_row / touched:.4f} with these patterns", rate, "lower it")
        return share

    def _weighted(self, table: Table, weights: Array, candidate: np.ndarray) -> Array:
        """Weighted score of each row under its own candidate pattern."""
        total = np.zeros(table.shape[0])
        for j in np.flatnonzero(np.any(weights != 0, axis=0)):
            w = weights[candidate, j]
            total += np.where(w != 0, w * standard_score(table.numeric(int(j)), "high")[0], 0.0)
        if np.isnan(total).any():
            raise fail("weights", "complete columns under a weight", "missing cells in them", "set their weight to 0")
        return total
