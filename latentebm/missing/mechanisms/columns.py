"""Column mechanisms: MCAR, MAR, self-masking and column-driven removal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from latentebm.checks import check_choice, check_number, fail
from latentebm.missing.mechanisms.mechanism import (
    DIRECTIONS,
    KINDS,
    Array,
    Mechanism,
    MissingDataWarning,
    Removal,
    link,
    needs_rate,
    solve_link,
    standard_score,
)
from latentebm.missing.mechanisms.table import Columns, Table

__all__ = ["MAR", "MCAR", "ColumnDriven", "SelfMasking"]


@dataclass(frozen=True)
class MCAR(Mechanism):
    r"""Missing completely at random: every cell goes with the same probability, :math:`P(s_{ij}=0 \mid x) = r`.

    Arguments:
        columns: columns that may lose cells, names or numbers; all by default.

    Raises:
        ValueError: on use, where a column does not exist or no rate is given.

    References:
        Inference and missing data (Rubin, 1976)

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> _, mask = make_missing(np.zeros((1000, 20)), MCAR(), rate=0.25, random_state=0)
        >>> round(1 - float(mask.mean()), 2)
        0.24
    """

    columns: Columns = None

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each column with uniformly chosen rows."""
        rate = needs_rate(rate, "MCAR")
        for j in table.indices(self.columns):
            yield [j], rng.random(table.shape[0]) < rate


@dataclass(frozen=True)
class MAR(Mechanism):
    r"""Missing at random: the chance of a cell depends on fully observed columns only.

    .. math:: P(s_{ij}=0 \mid x) = F\Big(a_j + b \sum_{c \in \mathrm{columns}} z_{ic} / \sqrt{C}\Big)

    with z the standardised observed columns and :math:`a_j` solved for the rate.

    Arguments:
        columns: the observed columns that drive the loss; they stay complete.
        targets: columns that may lose cells; by default all others.
        kind: ``logistic``, ``probit`` or ``hard``.
        direction: which driver values remove: ``high``, ``low``, ``tails`` or ``middle``.
        slope: b, per standard deviation.

    Raises:
        ValueError: a choice is unknown; on use, where a driver has missing cells or is among the targets.

    References:
        Inference and missing data (Rubin, 1976)

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> X = np.random.default_rng(0).normal(size=(1000, 3))
        >>> _, mask = make_missing(X, MAR([0]), rate=0.3, random_state=0)
        >>> bool(mask[:, 0].all()), bool(X[mask[:, 1], 0].mean() < X[~mask[:, 1], 0].mean())
        (True, True)
    """

    columns: Columns
    targets: Columns = None
    kind: str = "logistic"
    direction: str = "high"
    slope: float = 2.0

    def __post_init__(self) -> None:
        _check_shape(self.kind, self.direction, self.slope)

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each target with rows chosen by the drivers."""
        rate = needs_rate(rate, "MAR")
        drivers = table.indices(self.columns)
        targets = [j for j in table.indices(self.targets) if self.targets is not None or j not in drivers]
        if set(targets) & set(drivers) or not targets or not drivers:
            raise fail("targets", "columns other than the drivers", self.targets, "a driver of MAR stays observed")
        score = _score(table, drivers, self.direction)
        if np.isnan(score).any():
            raise fail("columns", "fully observed drivers", "missing cells in them", "choose others, or ColumnDriven")
        yield from _remove_all(table, targets, score, self, rate, rng)


@dataclass(frozen=True)
class SelfMasking(Mechanism):
    r"""Missing not at random by its own value, cell by cell.

    .. math:: P(s_{ij}=0 \mid x) = F(a_j + b\,z_{ij}), \qquad z_{ij} = (x_{ij} - \bar x_j)/\mathrm{sd}_j

    with F a step (``hard``), the normal (``probit``) or the logistic distribution function. Given a rate, each
    :math:`a_j` is solved so that the expected share of removed cells is the rate in every column; without one,
    ``intercept`` is taken as it is (for ``hard``: cells with :math:`a + z > 0` go, so 0 is "above the mean").

    Arguments:
        kind: ``hard``, ``probit`` or ``logistic``.
        direction: ``high``, ``low``, ``tails`` (far from the mean) or ``middle``.
        columns: columns that lose cells; all by default.
        slope: b, per standard deviation of the column; unused by ``hard``.
        intercept: a at the column's mean, instead of a rate.

    Raises:
        ValueError: a choice is unknown; on use, where both or neither of rate and intercept are given.

    References:
        not-MIWAE: Deep generative modelling with missing not at random data (Ipsen, Mattei and Frellsen, 2021),
        https://arxiv.org/abs/2006.12871

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> X = np.arange(8.0).reshape(4, 2)
        >>> make_missing(X, SelfMasking("hard", columns=[1], intercept=0.0))[0][:, 1]
        array([ 1.,  3., nan, nan])
    """

    kind: str = "logistic"
    direction: str = "high"
    columns: Columns = None
    slope: float = 2.0
    intercept: float | None = None

    def __post_init__(self) -> None:
        _check_shape(self.kind, self.direction, self.slope)

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each column with rows chosen by its own values."""
        if (rate is None) == (self.intercept is None):
            raise fail("rate", "either a rate or an intercept", f"rate={rate}, intercept={self.intercept}", "pass one")
        for j in table.indices(self.columns):
            score = _score(table, [j], self.direction)
            if self.intercept is None:
                seen = table.observed(j)
                yield [j], _remove(_chances(score, seen, self, needs_rate(rate, "it")), seen, rng)
            else:
                p = _given(score, self.kind, self.slope, self.intercept)
                yield [j], _remove(p, table.observed(j), rng)


@dataclass(frozen=True)
class ColumnDriven(Mechanism):
    r"""Missing not at random by another column, which goes missing too.

    .. math:: P(s_{ij}=0 \mid x) = F(a_j + b\,z_{id}), \qquad d = \mathrm{driver}

    The driver is a target like the others (unless `targets` leaves it out), so that what explains the loss is
    itself lost: rows with much missing are the rows one knows least about.

    Arguments:
        driver: the column the loss depends on.
        targets: columns that may lose cells; all by default, the driver among them.
        kind: ``hard``, ``probit`` or ``logistic``.
        direction: ``high``, ``low``, ``tails`` or ``middle``.
        slope: b, per standard deviation of the driver.

    Raises:
        ValueError: a choice is unknown; on use, where the driver already has missing cells.

    References:
        How to generate missing data for simulation studies (Zhang, 2023)

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> X = np.random.default_rng(0).normal(size=(1000, 3))
        >>> _, mask = make_missing(X, ColumnDriven(0, [0, 1], kind="hard"), rate=0.5, random_state=0)
        >>> bool((mask[:, 0] == mask[:, 1]).all())
        True
    """

    driver: int | str
    targets: Columns = None
    kind: str = "logistic"
    direction: str = "high"
    slope: float = 2.0

    def __post_init__(self) -> None:
        _check_shape(self.kind, self.direction, self.slope)

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each target with rows chosen by the driver."""
        rate = needs_rate(rate, "ColumnDriven")
        score = _score(table, table.indices(self.driver), self.direction)
        if np.isnan(score).any():
            raise fail("driver", "a complete column", "missing cells in it", "impute it, or choose another")
        yield from _remove_all(table, table.indices(self.targets), score, self, rate, rng)


def _check_shape(kind: str, direction: str, slope: float) -> None:
    check_choice("kind", kind, KINDS)
    check_choice("direction", direction, DIRECTIONS)
    check_number("slope", slope, low=0, high=1e6)


def _score(table: Table, columns: list[int], direction: str) -> Array:
    """Mean of the columns' standard scores, scaled to keep a variance near 1."""
    total = np.zeros(table.shape[0])
    for j in columns:
        score, constant = standard_score(table.numeric(j), direction)
        if constant:
            warnings.warn(f"column {j} is constant: it cannot drive what goes missing", MissingDataWarning, 6)
        total += score
    return total / np.sqrt(len(columns))


def _remove_all(
    table: Table, targets: list[int], score: Array, law: MAR | ColumnDriven, rate: float, rng: np.random.Generator
) -> Iterator[Removal]:
    """Columns driven by one score; complete ones share their probabilities."""
    shared: Array | None = None
    for j in targets:
        seen = table.observed(j)
        if seen.all():
            shared = _chances(score, seen, law, rate) if shared is None else shared
            yield [j], _remove(shared, seen, rng)
        else:
            yield [j], _remove(_chances(score, seen, law, rate), seen, rng)


def _chances(score: Array, seen: np.ndarray, law: MAR | ColumnDriven | SelfMasking, rate: float) -> Array:
    """Probabilities (N,): cells already missing count neither in the rate nor among the removed."""
    if seen.all():
        return solve_link(score, law.kind, law.slope, rate)
    p = np.zeros(len(score))
    p[seen] = solve_link(score[seen], law.kind, law.slope, rate)
    return p


def _remove(p: Array, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(len(p)) < p) & seen


def _given(score: Array, kind: str, slope: float, intercept: float) -> Array:
    score = np.nan_to_num(score)
    if kind == "hard":
        return (intercept + score > 0).astype(np.float64)
    return link(intercept + slope * score, kind)
