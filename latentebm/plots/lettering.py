"""Names from outside in figures: every sign drawn, whatever the fonts of the machine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

__all__ = ["drawable", "fonts", "name_ticks", "verbatim"]

PER_INCH, UPRIGHT = 13, 16  # signs of names side by side; of one that stands upright
# Fonts of Chinese, Japanese and Korean on common systems; those that are installed follow the user's own.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei",
)  # fmt: skip


@contextmanager
def fonts() -> Iterator[None]:
    """Fonts that stand in for signs that the user's own fonts lack; as a decorator, around a whole figure.

    Example:
        >>> with fonts():
        ...     "sans-serif" in rcParams["font.family"]
        True
    """
    with rc_context({"font.family": _families()}):
        yield


def _families() -> list[str]:
    own, there = list(rcParams["font.family"]), {font.name for font in fontManager.ttflist}
    return [*own, *(name for name in FALLBACKS if name in there and name not in own)]


def drawable(text: str) -> str:
    r"""The text as fonts can draw it: a sign that none of them has, or that is none, by its number.

    Example:
        >>> print(drawable("café \x1b[1m"), drawable("\U000f1234"))
        café \x1b[1m \U000f1234
    """
    files = tuple(findfont(FontProperties(family=[name])) for name in _families())
    return "".join(sign if sign == "\n" or _has(files, sign) else _number(sign) for sign in text)


@functools.lru_cache(maxsize=4096)
def _has(files: tuple[str, ...], sign: str) -> bool:
    if not sign.isprintable():
        return False
    return sign.isascii() or any(get_font(file).get_char_index(ord(sign)) for file in files)


def _number(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if not sign.isascii() else f"\\x{ord(sign):02x}"


def verbatim(names: Iterable[Any], longest: int = 24) -> list[str]:
    r"""Names from outside as a figure shows them: a dollar begins no formula, an underscore hides none in a legend.

    Those with more signs than the longest are cut.

    Example:
        >>> print(*verbatim(["$a^$", "b", "_c"]))
        \$a^\$ b  _c
    """
    cut = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in map(str, names)]
    shown = [drawable(name.replace("\n", " ")).replace("$", r"\$") for name in cut]
    return [f" {name}" if name.startswith("_") else name for name in shown]


def _inches(ax: Axes) -> float:
    return float(ax.bbox.width / ax.figure.dpi) if ax.figure is not None else 1.0


def name_ticks(ax: Axes, names: Sequence[str], size: float = 9) -> None:
    """Names below the places 0, 1, …: upright and shorter where they would run into each other, fewer where too many.

    Example:
        >>> from latentebm.plots.style import new_figure
        >>> _, (ax,) = new_figure(3, 2)
        >>> name_ticks(ax, ["a rather long name", "another that is long"])
        >>> [tick.get_rotation() for tick in ax.get_xticklabels()]
        [90.0, 90.0]
    """
    shown, inches = verbatim(names), _inches(ax)
    every = -(-len(shown) // max(1, int(7 * inches)))
    places = list(range(0, len(shown), every))
    crowded = sum(len(shown[k]) + 2 for k in places) > PER_INCH * inches
    shown = verbatim(names, longest=UPRIGHT) if crowded else shown
    ax.set_xticks(places, [shown[k] for k in places], rotation=90 if crowded else 0, fontsize=size)
    ax.tick_params(axis="x", labelfontfamily=_families())
