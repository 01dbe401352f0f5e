"""What every missing-data mechanism shares: removal column by column, links, and rates solved exactly."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from latentebm.checks import check_choice, check_number, fail
from latentebm.missing.mechanisms.table import Table

__all__ = ["LinkedMechanism", "Mechanism", "MissingDataWarning", "Removal", "link", "solve_link", "standard_score"]

Array: TypeAlias = NDArray[np.float64]
Removal: TypeAlias = tuple[Sequence[int], NDArray[np.bool_]]

KINDS = ("hard", "probit", "logistic")
DIRECTIONS = ("high", "low", "tails", "middle")


class MissingDataWarning(UserWarning):
    """Something about the missing cells deserves a look: an empty row or column, or a constant one."""


class Mechanism(ABC):
    """Decides which cells go missing; applied by :func:`make_missing`.

    Random numbers are drawn in one fixed order whatever the values are, so that with one seed two tables that differ
    only in cells a mechanism does not look at get the same mask.

    References:
        Inference and missing data (Rubin, 1976), https://doi.org/10.1093/biomet/63.3.581
    """

    @abstractmethod
    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield columns and the rows (N,) removed from them; ValueError where the rate is not one it can have."""

    def needs(self, rate: float | None) -> float:
        """Return the rate of a mechanism that has no other strength; ValueError without one."""
        if rate is None:
            raise fail("rate", f"the share of cells {type(self).__name__} removes", None, "pass rate=0.3")
        return rate


@dataclass(frozen=True, kw_only=True)
class LinkedMechanism(Mechanism):
    """A mechanism whose probabilities follow a score z of standard deviation 1, :math:`P = F(a + b z)`.

    Arguments:
        kind: F: ``logistic`` or normal (``probit``) distribution function, or a step (``hard``).
        direction: values that go missing: ``high``, ``low``, ``tails`` (far from the mean) or ``middle``.
        slope: b; unused by ``hard``.
    """

    kind: Literal["hard", "probit", "logistic"] = "logistic"
    direction: Literal["high", "low", "tails", "middle"] = "high"
    slope: float = 2.0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("direction", self.direction, DIRECTIONS)
        check_number("slope", self.slope, low=0, high=1e6)

    def score(self, table: Table, columns: Sequence[int]) -> Array:
        """Sum of the columns' standard scores (N,), scaled to keep a variance near 1; larger = likelier missing."""
        total = np.zeros(table.shape[0])
        for j in columns:
            score, constant = standard_score(table.numeric(j), self.direction)
            if constant:
                warnings.warn(f"column {j} is constant: it cannot drive what goes missing", MissingDataWarning, 4)
            total += score
        return total / np.sqrt(len(columns))

    def chances(self, score: Array, rate: float) -> Array:
        """Probabilities (n,) of cells with these scores, their mean being the rate."""
        return solve_link(score, self.kind, self.slope, rate)

    def by_score(
        self, table: Table, targets: Sequence[int], score: Array, rate: float, rng: np.random.Generator
    ) -> Iterator[Removal]:
        """Yield each target with rows chosen by one score; missing cells neither count in the rate nor are removed."""
        shared: Array | None = None
        for j in targets:
            seen = table.seen[j]
            if seen.all():
                p = shared = self.chances(score, rate) if shared is None else shared
            else:
                p = np.zeros(len(score))
                p[seen] = self.chances(score[seen], rate)
            yield [j], (rng.random(len(p)) < p) & seen


def standard_score(x: Array, direction: str) -> tuple[Array, bool]:
    """Score (N,) in standard deviations, larger = likelier missing, and whether the column is constant."""
    if np.isnan(x).all():
        return x, False  # nothing there to score, nor to remove
    unit = float(np.nanmax(np.abs(x))) or 1.0  # squares of very large or small numbers would leave the floats
    x = x / unit
    centre, sd = float(np.nanmean(x)), float(np.nanstd(x))
    # Rounding leaves a constant column a deviation of a few ulp.
    constant = sd <= 1e-12 * abs(centre)
    z = x * 0.0 if constant else (x - centre) / sd
    return {"high": z, "low": -z, "tails": np.abs(z), "middle": -np.abs(z)}[direction], constant


def solve_link(score: Array, kind: str, slope: float, rate: float) -> Array:
    r"""Probabilities (n,) of a link whose mean over the rows is exactly `rate`.

    .. math:: p_i = F(a + b\,s_i),\quad \tfrac1n\sum_i p_i = r

    with F the logistic or normal distribution function, or the step at the (1 − r) quantile of the scores, whose
    ties share the remainder.

    Example:
        >>> solve_link(np.array([0.0, 1.0, 1.0, 2.0]), "hard", 1.0, 0.5)
        array([0. , 0.5, 0.5, 1. ])
    """
    if rate == 0 or not len(score):
        return np.zeros_like(score)
    if kind == "hard":
        return _top_share(score, rate)
    # Binned scores bring Newton's method to the answer, so that all rows are mostly gone through once.
    bins, counts = _binned(score)
    start, _ = _newton(bins, counts, kind, slope, rate, -slope * float(np.average(bins, weights=counts)))
    return _newton(score, None, kind, slope, rate, start)[1]


def link(logit: Array, kind: str) -> Array:
    """Logistic or normal distribution function, or the step above 0."""
    if kind == "hard":
        return (logit > 0).astype(np.float64)
    return expit(logit) if kind == "logistic" else ndtr(logit)


def _top_share(score: Array, rate: float) -> Array:
    wanted = rate * len(score)
    threshold = np.partition(score, len(score) - 1 - int(wanted))[len(score) - 1 - int(wanted)]
    above, tied = score > threshold, score == threshold
    return above + tied * ((wanted - above.sum()) / tied.sum())


def _binned(score: Array, bins: int = 4096) -> tuple[Array, Array]:
    """Mean score and count of each bin that holds any."""
    low = float(score.min())
    place = ((score - low) * ((bins - 1) / max(float(score.max()) - low, 1e-300))).astype(np.intp)
    counts, sums = np.bincount(place), np.bincount(place, score)
    full = counts > 0
    return sums[full] / counts[full], counts[full].astype(np.float64)


def _newton(
    score: Array, weight: Array | None, kind: str, slope: float, rate: float, a: float
) -> tuple[float, Array]:  # fmt: skip
    """Intercept and probabilities by Newton's method inside a shrinking bracket: the weighted mean rises with it."""
    reach = 40.0 + abs(slope) * float(np.abs(score).max())
    low, high = -reach, reach
    for _ in range(100):
        p = link(a + slope * score, kind)
        gap = float(np.average(p, weights=weight)) - rate
        # Far below the binomial error of any table that fits in memory.
        if abs(gap) < 1e-6:
            break
        low, high = (low, a) if gap > 0 else (a, high)
        density = p * (1 - p) if kind == "logistic" else np.exp(-0.5 * (a + slope * score) ** 2) / np.sqrt(2 * np.pi)
        grade = float(np.average(density, weights=weight))
        step = a - gap / grade if grade > 0 else np.inf
        a = step if low < step < high else 0.5 * (low + high)
    return a, p
