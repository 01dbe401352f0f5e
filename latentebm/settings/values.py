"""Classes and class shares as values: what ``0-4``, ``long-tail:50`` and ``3:.5,8:.5`` stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentebm.checks import check_number, fail

__all__ = [
    "ALL",
    "FIRST_FIVE",
    "Classes",
    "LongTail",
    "NamedShares",
    "OfReference",
    "Shares",
    "Uniform",
    "biased_shares",
    "parse_classes",
    "parse_proportions",
    "parse_target",
]

LITERATURE = (0.12, 0.33, 0.28, 0.20, 0.07)  # the published biased shares of five classes


@dataclass(frozen=True)
class Classes:
    """Classes by index, range or name; the one word ``all`` stands for every class."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.words)

    def pick(self, names: Sequence[str]) -> list[int]:
        """Indices of these classes among the names of all.

        Raises:
            ValueError: an unknown class, one given twice, or fewer than two.

        Example:
            >>> parse_classes("0-2,cat").pick(("a", "b", "c", "cat"))
            [0, 1, 2, 3]
        """
        if self == ALL:
            return list(range(len(names)))
        chosen = [k for word in self.words for k in _indices(word, names)]
        outside = [k for k in chosen if k >= len(names)]
        if outside or len(set(chosen)) != len(chosen) or len(chosen) < 2:
            expected = f"at least two different classes of 0-{len(names) - 1}"
            raise fail("classes", expected, repr(str(self)), "pass for example classes=0-1")
        return chosen


ALL, FIRST_FIVE = Classes(("all",)), Classes(("0-4",))


@dataclass(frozen=True)
class Shares:
    """One share for each class of the run, in order."""

    name: str
    values: tuple[float, ...]

    def __str__(self) -> str:
        return ",".join(f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in self.values)

    def of(self, names: Sequence[str]) -> list[float]:
        """The shares of classes of these names.

        Raises:
            ValueError: another number of classes.
        """
        if len(self.values) != len(names):
            expected, fix = f"{len(names)} shares, one per class", f"pass {len(names)} numbers that sum to 1"
            raise fail(self.name, expected, len(self.values), fix)
        return list(self.values)


@dataclass(frozen=True)
class NamedShares:
    """Shares of some classes by name; the others get none."""

    pairs: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return ",".join(f"{name}:{share:g}" for name, share in self.pairs)

    def of(self, names: Sequence[str]) -> list[float]:
        """The shares of classes of these names; ``0`` also stands for built-in data's ``0 - zero``.

        Raises:
            ValueError: an unknown name.

        Example:
            >>> parse_target("Ankle boot:.5,Bag:.5").of(("Bag", "Coat", "Ankle boot"))
            [0.5, 0.0, 0.5]
        """
        short = {name.partition(" - ")[0]: name for name in names}
        shares = {name if name in names else short.get(name, name): share for name, share in self.pairs}
        unknown = sorted(set(shares) - set(names))
        if unknown or len(shares) != len(self.pairs):
            got = ", ".join(unknown) or str(self)
            raise fail("target", f"each class once, of {', '.join(names)}", got, "correct the names")
        return [shares.get(name, 0.0) for name in names]


@dataclass(frozen=True)
class Uniform:
    """The same share for every class."""

    def __str__(self) -> str:
        return "uniform"

    def of(self, names: Sequence[str]) -> list[float]:
        """The shares of classes of these names."""
        return [1 / len(names)] * len(names)


@dataclass(frozen=True)
class OfReference:
    """The shares that the user's own reference has."""

    def __str__(self) -> str:
        return "reference"

    def of(self, names: Sequence[str]) -> list[float]:
        """Always refused: the reference is cut to a target, or read where its own shares are the target.

        Raises:
            ValueError: in every case.
        """
        fix = "pass target=uniform or shares"
        raise fail("target", "a target of its own, since the reference is cut to it", "'reference'", fix)


@dataclass(frozen=True)
class LongTail:
    """Exponentially falling shares, the first class `ratio` times the last."""

    ratio: float

    def __str__(self) -> str:
        return f"long-tail:{self.ratio:g}"

    def of(self, names: Sequence[str]) -> list[float]:
        """The shares of classes of these names.

        Example:
            >>> [round(share, 2) for share in LongTail(4).of(("a", "b", "c"))]
            [0.57, 0.29, 0.14]
        """
        sizes = [self.ratio ** (-k / (len(names) - 1)) for k in range(len(names))]
        return [size / sum(sizes) for size in sizes]


def parse_classes(value: Any) -> Classes | None:
    """Classes of ``0-4``, ``0,2,7``, ``cat,dog``, ``all`` or a list of them; None stays None.

    Example:
        >>> parse_classes([0, 2]).words, str(parse_classes("0-4"))
        (('0', '2'), '0-4')
    """
    if value is None or isinstance(value, Classes):
        return value
    words = value.split(",") if isinstance(value, str) else [str(word) for word in _listed("classes", value)]
    return Classes(tuple(word.strip() for word in words))


def parse_proportions(value: Any) -> Shares | LongTail | None:
    """Biased shares of numbers or ``long-tail:50``; None stays None.

    Raises:
        ValueError: no numbers, no sum of 1, or a ratio below 1.

    Example:
        >>> parse_proportions(".5, .5").values, parse_proportions("long-tail:50")
        ((0.5, 0.5), LongTail(ratio=50.0))
    """
    if value is None or isinstance(value, Shares | LongTail):
        return value
    if isinstance(value, str) and value.startswith("long-tail:"):
        ratio = value.partition(":")[2]
        return LongTail(check_number("proportions", ratio, low=1, high=1e9, fix="pass long-tail:50"))
    return _shares("proportions", value)


def parse_target(value: Any) -> Shares | NamedShares | Uniform | OfReference | None:
    """Wanted shares of ``uniform``, ``reference``, numbers, or ``name:share`` pairs; None stays None.

    Raises:
        ValueError: shares that are no numbers, or do not sum to 1.

    Example:
        >>> parse_target("b:.25, a:.75").of(("a", "b")), parse_target({"a": 1}).of(("a", "b"))
        ([0.75, 0.25], [1.0, 0.0])
    """
    if value is None or isinstance(value, Shares | NamedShares | Uniform | OfReference):
        return value
    if isinstance(value, str) and value in ("uniform", "reference"):
        return Uniform() if value == "uniform" else OfReference()
    if isinstance(value, Mapping) or (isinstance(value, str) and ":" in value):
        return _named(value)
    return _shares("target", value)


def biased_shares(proportions: Shares | LongTail | None, names: Sequence[str]) -> list[float]:
    """Shares of the biased set; without proportions the published ones of five classes.

    Raises:
        ValueError: another number of shares, or no default for this many classes.

    Example:
        >>> biased_shares(None, "abcde")
        [0.12, 0.33, 0.28, 0.2, 0.07]
    """
    if proportions is not None:
        return proportions.of(names)
    if len(names) != len(LITERATURE):
        fix = "pass proportions with one share per class, or a reference"
        raise fail("proportions", f"{len(names)} shares", "None", fix)
    return list(LITERATURE)


def _indices(word: str, names: Sequence[str]) -> Iterable[int]:
    low, dash, high = word.partition("-")
    if word in names:
        return [list(names).index(word)]
    if dash and low.isdecimal() and high.isdecimal():
        return range(int(low), int(high) + 1)
    if word.isdecimal():
        return [int(word)]
    raise fail("classes", "indices, ranges or names of classes", repr(word), f"choose among {', '.join(names)}")


def _named(value: str | Mapping[Any, Any]) -> NamedShares:
    if isinstance(value, str):
        # Names may hold blanks; without a comma, blanks part the pairs.
        parts = [part.strip() for part in (value.split(",") if "," in value else value.split())]
        pairs = [(name.strip(), share) for name, _, share in (part.rpartition(":") for part in parts)]
    else:
        pairs = [(str(name), share) for name, share in value.items()]
    shares = _shares("target", [share for _, share in pairs])
    return NamedShares(tuple(zip((name for name, _ in pairs), shares.values, strict=True)))


def _shares(name: str, value: Any) -> Shares:
    tokens = value.replace(",", " ").split() if isinstance(value, str) else _listed(name, value)
    fix = "pass one number per class, which together sum to 1"
    values = tuple(check_number(name, token, low=0, high=1, fix=fix) for token in tokens)
    if values and abs(sum(values) - 1) > 1e-6:
        raise fail(name, "shares that sum to 1", f"a sum of {sum(values):.6g}", fix)
    return Shares(name, values)


def _listed(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, Sequence):
        raise fail(name, "text or a list", repr(value), f"pass for example {name}=[…]")
    return value
