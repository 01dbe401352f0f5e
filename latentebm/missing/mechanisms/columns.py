"""Column mechanisms: MCAR, MAR, self-masking and column-driven removal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from latentebm.checks import fail
from latentebm.missing.mechanisms.mechanism import Array, LinkedMechanism, Mechanism, Removal, link
from latentebm.missing.mechanisms.table import Columns, Table

__all__ = ["MAR", "MCAR", "ColumnDriven", "SelfMasking"]


@dataclass(frozen=True)
class MCAR(Mechanism):
    r"""Missing completely at random: every cell goes with the same probability, :math:`P(s_{ij}=0 \mid x) = r`.

    `columns` that may lose cells are names or numbers; all by default.

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> _, mask = make_missing(np.zeros((1000, 20)), MCAR(), rate=0.25, random_state=0)
        >>> round(1 - float(mask.mean()), 2)
        0.24
    """

    columns: Columns = None

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each column with uniformly chosen rows."""
        rate = self.needs(rate)
        for j in table.indices(self.columns):
            yield [j], rng.random(table.shape[0]) < rate


@dataclass(frozen=True)
class MAR(LinkedMechanism):
    r"""Missing at random: the probability depends on fully observed columns only.

    .. math:: P(s_{ij}=0 \mid x) = F\Big(a_j + b \sum_{c \in \mathrm{columns}} z_{ic} / \sqrt{C}\Big)

    with z the standardised observed columns and :math:`a_j` solved for the rate.

    Arguments:
        columns: the observed columns that drive the loss; they stay complete.
        targets: columns that may lose cells; by default all others.
        kind, direction, slope: as in :class:`LinkedMechanism`, of the drivers' values.

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> X = np.random.default_rng(0).normal(size=(1000, 3))
        >>> _, mask = make_missing(X, MAR([0]), rate=0.3, random_state=0)
        >>> bool(mask[:, 0].all()), bool(X[mask[:, 1], 0].mean() < X[~mask[:, 1], 0].mean())
        (True, True)
    """

    columns: Columns
    targets: Columns = None

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each target with rows chosen by the drivers."""
        rate = self.needs(rate)
        drivers = table.indices(self.columns)
        targets = [j for j in table.indices(self.targets) if self.targets is not None or j not in drivers]
        if set(targets) & set(drivers) or not targets or not drivers:
            raise fail("targets", "columns other than the drivers", self.targets, "leave the drivers out of targets")
        score = self.score(table, drivers)
        if np.isnan(score).any():
            raise fail("columns", "fully observed drivers", "missing cells in them", "choose others, or ColumnDriven")
        yield from self.by_score(table, targets, score, rate, rng)


@dataclass(frozen=True)
class SelfMasking(LinkedMechanism):
    r"""Missing not at random by its own value, cell by cell.

    .. math:: P(s_{ij}=0 \mid x) = F(a_j + b\,z_{ij}), \qquad z_{ij} = (x_{ij} - \bar x_j)/\mathrm{sd}_j

    Given a rate, each :math:`a_j` is solved so that the expected share of removed cells is the rate in every column;
    without one, ``intercept`` is taken as it is (for ``hard``: cells with :math:`a + z > 0` go, so 0 is "above the
    mean").

    Arguments:
        kind, direction, slope: as in :class:`LinkedMechanism`.
        columns: columns that lose cells; all by default.
        intercept: a at the column's mean, instead of a rate.

    Example:
        >>> from latentebm.missing.mechanisms import make_missing
        >>> X = np.arange(8.0).reshape(4, 2)
        >>> make_missing(X, SelfMasking("hard", columns=[1], intercept=0.0))[0][:, 1]
        array([ 1.,  3., nan, nan])
    """

    kind: Literal["hard", "probit", "logistic"] = "logistic"
    direction: Literal["high", "low", "tails", "middle"] = "high"
    columns: Columns = None
    intercept: float | None = None

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each column with rows chosen by its own values."""
        if (rate is None) == (self.intercept is None):
            raise fail("rate", "either a rate or an intercept", f"rate={rate}, intercept={self.intercept}", "pass one")
        for j in table.indices(self.columns):
            yield from self.by_score(table, [j], self.score(table, [j]), rate or 0.0, rng)

    def chances(self, score: Array, rate: float) -> Array:
        """Probabilities (n,) of cells with these scores: their mean is the rate, or their intercept is given."""
        if self.intercept is None:
            return super().chances(score, rate)
        return link(self.intercept + (1.0 if self.kind == "hard" else self.slope) * score, self.kind)


@dataclass(frozen=True)
class ColumnDriven(LinkedMechanism):
    r"""Missing not at random by another column, which goes missing too.

    .. math:: P(s_{ij}=0 \mid x) = F(a_j + b\,z_{id}), \qquad d = \mathrm{driver}

    The driver is a target like the others (unless `targets` leaves it out), so that what explains the loss is lost too.

    Arguments:
        driver: the column the loss depends on, complete so far.
        targets: columns that may lose cells; all by default, the driver among them.
        kind, direction, slope: as in :class:`LinkedMechanism`, of the driver's values.

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

    def remove(self, table: Table, rate: float | None, rng: np.random.Generator) -> Iterator[Removal]:
        """Yield each target with rows chosen by the driver."""
        rate = self.needs(rate)
        score = self.score(table, table.indices(self.driver))
        if np.isnan(score).any():
            raise fail("driver", "a complete column", "missing cells in it", "impute it, or choose another")
        yield from self.by_score(table, table.indices(self.targets), score, rate, rng)
