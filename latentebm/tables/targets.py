"""What a table's shares shall be: marginal, joint and conditional shares, and means; parity has a module of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from latentebm.checks import check_choice, check_number, fail
from latentebm.tables.moments_of_rows import Moment, Rows, Term

__all__ = ["Bound", "Mean", "Share", "Target", "as_targets", "check_columns_known", "said"]

Bound = Literal["equal", "at_most", "at_least"]
BOUNDS = ("equal", "at_most", "at_least")


class Target(ABC):
    """A wish about the rows, which becomes moments: wanted means of features of a row."""

    @abstractmethod
    def columns(self) -> tuple[Hashable, ...]:
        """Columns that the wish is about."""

    @abstractmethod
    def moments(self, drawn: Rows, reference: Rows | None) -> list[Moment]:
        """The wish in numbers, with whatever it leaves open taken from the model's rows or the reference's."""

    @property
    def open(self) -> bool:
        """Whether its numbers come from a reference table."""
        return False


@dataclass(frozen=True)
class Share(Target):
    r"""Shares of a column's values, of the value pairs of several columns, or of either among some rows only.

    .. math:: P(x_c = v \mid x_g = w) = s_v

    Arguments:
        column: a name, or a list of names for joint shares, whose values are then tuples.
        shares: share of each value; values left out are free. None takes all of them from the reference table.
        given: column to value of the rows meant; None for all.
        bound: whether the shares hold exactly (``equal``), or ``at_most`` or ``at_least``.

    Values are plain, ``pd.Interval`` for numbers, or None for missing cells.

    Example:
        >>> Share("sex", {"Female": 0.5}).columns()
        ('sex',)
        >>> Share(["sex", "income"], {("Female", ">50K"): 0.12}).columns()
        ('sex', 'income')
    """

    column: Any
    shares: Mapping[Any, float] | None = None
    given: Mapping[Any, Any] | None = None
    bound: Bound = "equal"

    def __post_init__(self) -> None:
        check_choice("bound", self.bound, BOUNDS)
        if self.shares is None:
            return
        name = f"shares of {self.column!r}"
        if not isinstance(self.shares, Mapping) or not self.shares:
            raise fail(name, "a mapping of each value to its share", repr(self.shares), 'pass for example {"F": 0.5}')
        names = _names(self.column)
        if len(names) > 1 and not all(isinstance(v, tuple) and len(v) == len(names) for v in self.shares):
            fix = f"pass for example {{{tuple(f'{n} value' for n in names)!r}: 0.1}}"
            raise fail(name, f"tuples of {len(names)} values", list(self.shares)[:3], fix)
        total = sum(check_number(name, s, low=0, high=1) for s in self.shares.values())
        if total > 1 + 1e-9 and self.bound == "equal":
            raise fail(name, "a sum of at most 1", f"{total:.6g}", "divide them by their sum")

    @property
    def open(self) -> bool:
        """Whether its numbers come from a reference table."""
        return self.shares is None

    def columns(self) -> tuple[Hashable, ...]:
        """Columns of the shares and of the condition."""
        return (*_names(self.column), *(self.given or {}))

    def cells(self, reference: Rows | None) -> list[tuple[dict[Any, Any], float]]:
        """Each cell that the shares speak of, column to value, and its share."""
        names, given = _names(self.column), dict(self.given or {})
        shares = self.shares if self.shares is not None or reference is None else reference.shares(names, given)
        return [
            (dict(zip(names, value if len(names) > 1 else (value,), strict=True)), share)
            for value, share in (shares or {}).items()
        ]

    def moments(self, drawn: Rows, reference: Rows | None) -> list[Moment]:
        """One for each value: the mean of 1(x = v) − s over the rows meant is 0."""
        given = dict(self.given or {})
        weight, found = 1 / drawn.share_above_zero(given), []
        for cell, share in self.cells(reference):
            if share > 0:
                drawn.share_above_zero({**given, **cell})
            terms = (Term(weight, tuple({**given, **cell}.items())), Term(-weight * share, tuple(given.items())))
            found.append(Moment(said(cell, given), terms, share, self.bound, offset=share))
        return found


@dataclass(frozen=True)
class Mean(Target):
    r"""Mean of a number column over rows where it is not missing.

    .. math:: E[x_c \mid x_g = w] = m

    Example:
        >>> Mean("hours", 40.0, given={"sex": "Female"}).columns()
        ('hours', 'sex')
    """

    column: Any
    value: float
    given: Mapping[Any, Any] | None = None
    bound: Bound = "equal"

    def __post_init__(self) -> None:
        check_choice("bound", self.bound, BOUNDS)
        check_number(f"mean of {self.column!r}", self.value)

    def columns(self) -> tuple[Hashable, ...]:
        """The column and those of the condition."""
        return (self.column, *(self.given or {}))

    def moments(self, drawn: Rows, reference: Rows | None) -> list[Moment]:
        """One: the mean of (x − m) / sd over the rows meant is 0."""
        given = tuple((self.given or {}).items())
        self._check_reached(drawn)
        spread = drawn.spread(self.column) * drawn.share_above_zero(dict(given))
        terms = (Term(1 / spread, given, self.column, float(self.value)),)
        return [Moment(f"mean of {self.column}", terms, float(self.value), self.bound, offset=0.0)]

    def _check_reached(self, drawn: Rows) -> None:
        drawn.spread(self.column)  # refuses what is no number
        cells = drawn.table.loc[drawn.holds(self.given or {}), self.column].dropna()
        low, high = (float(cells.min()), float(cells.max())) if len(cells) else (0.0, 0.0)
        if (self.value > high and self.bound != "at_most") or (self.value < low and self.bound != "at_least"):
            got = f"{high if self.value > high else low:.6g} at the nearest, {self.value:.6g} wanted"
            raise fail("target", f"a mean of {self.column!r} that the model's rows reach", got, "pass one within reach")


def as_targets(target: Any) -> list[Target]:
    """Targets from one, several, or a mapping of a column to its shares.

    Example:
        >>> as_targets({"sex": {"Female": 0.5}})
        [Share(column='sex', shares={'Female': 0.5}, given=None, bound='equal')]
    """
    if target is None:
        return []
    if isinstance(target, Target):
        return [target]
    if isinstance(target, Mapping):
        return [Share(column, shares) for column, shares in target.items()]
    if isinstance(target, str) or not isinstance(target, Sequence):
        got = repr(target)
        raise fail("target", "Share, Parity, Mean, several in a list, or a mapping", got, 'pass Parity("y", by="a")')
    return [t for part in target for t in as_targets(part)]


def check_columns_known(targets: Sequence[Target], table: pd.DataFrame) -> None:
    """Raise ValueError if a target names a column that the table lacks."""
    for target in targets:
        unknown = [c for c in target.columns() if c not in table.columns]
        if unknown:
            raise fail("target", "columns of the table", unknown, f"pass some of {list(table.columns)[:10]}")


def _names(column: Any) -> tuple[Any, ...]:
    return tuple(column) if isinstance(column, list | tuple) else (column,)


def said(cell: Mapping[Any, Any], given: Mapping[Any, Any]) -> str:
    """A cell and its condition in words."""

    def joined(parts: Mapping[Any, Any]) -> str:
        return ", ".join(f"{c}={v}" for c, v in parts.items())

    return f"{joined(cell)} given {joined(given)}" if given else joined(cell)
