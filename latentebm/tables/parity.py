"""Parity between groups: demographic parity, equal opportunity, within strata, exact or up to a gap."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentebm.checks import check_number, fail
from latentebm.tables.moments_of_rows import Moment, Rows, Term
from latentebm.tables.targets import Target, said

__all__ = ["Parity", "equal_opportunity"]

MOST_GROUPS = 50  # values of a column that parity compares


@dataclass(frozen=True)
class Parity(Target):
    r"""Demographic parity: an outcome independent of a group, their own shares as the model or other targets say.

    .. math:: P(y, a \mid o) = P(y \mid o)\, P(a \mid o) \quad\text{or}\quad
              |P(y \mid a, o) - P(y \mid b, o)| \le \varepsilon

    Arguments:
        outcome: column of y.
        by: column of the groups a.
        within: column of the strata o, such as an occupation, in each of which parity shall hold; None for none.
        given: column to value, or list of values, of the rows meant; None for all.
        at_most: largest gap ε between two groups' shares of an outcome.

    References:
        Building classifiers with independency constraints (Calders, Kamiran and Pechenizkiy, 2009); Data preprocessing
        techniques for classification without discrimination (Kamiran and Calders, 2012)

    Example:
        >>> Parity("income", by="sex", within="occupation").columns()
        ('income', 'sex', 'occupation')
    """

    outcome: Any
    by: Any
    within: Any = None
    given: Mapping[Any, Any] | None = None
    at_most: float = 0.0

    def __post_init__(self) -> None:
        check_number("at_most", self.at_most, low=0, high=1)
        named = [self.outcome, self.by, *self._within]
        if len(set(named)) < len(named):
            raise fail("parity", "different columns", named, "name each column once")

    def columns(self) -> tuple[Hashable, ...]:
        """Outcome, groups, strata and condition."""
        return tuple(dict.fromkeys((self.outcome, self.by, *self._within, *(self.given or {}))))

    @property
    def _within(self) -> tuple[Any, ...]:
        return () if self.within is None else (self.within,)

    def moments(self, drawn: Rows, reference: Rows | None) -> list[Moment]:
        """Means of indicators of cells, or of differences of groups' shares."""
        given = dict(self.given or {})
        drawn.share_above_zero(given)
        values = [drawn.values(c, MOST_GROUPS, given) for c in (self.outcome, self.by, *self._within)]
        found = []
        for stratum in values[2] if self.within is not None else [None]:
            where = given if self.within is None else {**given, self.within: stratum}
            found += self._stratum(drawn, where, values[0], values[1])
        return found

    def _stratum(self, drawn: Rows, where: dict[Any, Any], ys: list[Any], groups: list[Any]) -> list[Moment]:
        inside = drawn.share(where)
        y_share = {y: drawn.share({**where, self.outcome: y}) for y in ys}
        a_share = {a: drawn.share({**where, self.by: a}) for a in groups}
        present = [(y, a) for y in ys for a in groups if y_share[y] * a_share[a] > 0]
        if self.at_most > 0:
            return self._bounded(where, inside, y_share, a_share, present)
        found = []
        for y, a in present:
            cell = {**where, self.outcome: y, self.by: a}
            drawn.share_above_zero(cell, fix=self._fix())
            wanted = y_share[y] * a_share[a] / inside
            found.append(Moment(said(cell, {}), (Term(1.0, tuple(cell.items())),), wanted))
        return found

    def _bounded(
        self, where: dict[Any, Any], inside: float, y_share: Mapping[Any, float], a_share: Mapping[Any, float],
        present: Sequence[tuple[Any, Any]],
    ) -> list[Moment]:  # fmt: skip
        held = [(self.outcome, y_share), (self.by, a_share)]
        found = [
            Moment(said({c: v}, where), (Term(1.0, tuple({**where, c: v}.items())),), s)
            for c, shares in held for v, s in shares.items() if s > 0
        ]  # fmt: skip
        for y in dict.fromkeys(y for y, _ in present):
            for a, b in itertools.permutations([a for z, a in present if z == y], 2):
                terms = [
                    Term(sign / a_share[g], tuple({**where, self.outcome: y, self.by: g}.items()))
                    for g, sign in ((a, 1.0), (b, -1.0))
                ]
                name = f"{self.outcome}={y} in {a} above {b}"
                found.append(Moment(name, tuple(terms), self.at_most, "at_most"))
        return found

    def _fix(self) -> str:
        if self.within is None:
            return "merge rare values, or train the model on more such rows"
        return f"merge rare strata, or pass given={{{self.within!r}: [the strata that hold every group]}}"


def equal_opportunity(decision: Any, by: Any, *, outcome: Any, positive: Any, at_most: float = 0.0) -> Parity:
    r"""Equal opportunity: among rows of a positive outcome a decision is independent of the group.

    .. math:: P(\hat y \mid a, y = 1) = P(\hat y \mid y = 1)

    References:
        Equality of Opportunity in Supervised Learning (Hardt, Price and Srebro, 2016),
        https://arxiv.org/abs/1610.02413

    Example:
        >>> equal_opportunity("hired", "sex", outcome="able", positive=True)
        Parity(outcome='hired', by='sex', within=None, given={'able': True}, at_most=0.0)
    """
    return Parity(decision, by, given={outcome: positive}, at_most=at_most)
