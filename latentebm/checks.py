"""Argument checks for the public edge: each names what was expected, what came, and the fix."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Not at run time: settings are checked before torch, which takes seconds to import, is needed.
    from torch import Generator, Tensor

__all__ = [
    "check_choice",
    "check_event",
    "check_finite",
    "check_int",
    "check_number",
    "check_points",
    "check_rng",
    "fail",
]


def fail(name: str, expected: str, got: object, fix: str) -> ValueError:
    """Build the one error every check raises, ``name: expected …, got …; fix``.

    Example:
        >>> str(fail("step", "a positive number", -1, "pass step=0.01"))
        'step: expected a positive number, got -1; pass step=0.01'
    """
    return ValueError(f"{name}: expected {expected}, got {got}; {fix}")


def check_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False, fix: str = ""
) -> float:
    """Return `value` as a float of [low, high], or (low, high] with `open_low`.

    Raises:
        ValueError: `value` is no real number, is NaN, or lies outside.

    Example:
        >>> check_number("step", 0.5, low=0, open_low=True)
        0.5
    """
    bracket = "(" if open_low else "["
    expected = f"a number of {bracket}{low:g}, {high:g}]"
    fix = fix or f"pass a value of {bracket}{low:g}, {high:g}]"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise fail(name, expected, repr(value), fix) from None
    if math.isnan(number) or not low <= number <= high or (open_low and number == low):
        raise fail(name, expected, repr(value), fix)
    return number


def check_int(name: str, value: Any, *, low: int = 1, fix: str = "") -> int:
    """Return `value` as an int of at least `low`.

    Raises:
        ValueError: `value` is no whole number or lies below.

    Example:
        >>> check_int("n", 3)
        3
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < low:
        raise fail(name, f"a whole number of at least {low}", repr(value), fix or f"pass {name}={low} or more")
    return int(value.__index__())


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_choice("sampler", "snis", ["snis", "langevin"])
        'snis'
    """
    if value not in choices:
        raise fail(name, f"one of {', '.join(choices)}", repr(value), f"pass for example {name}={next(iter(choices))}")
    return str(value)


def check_rng(generator: Any) -> Generator:
    """Return `generator` if it is one: without it torch would draw from its global state.

    Raises:
        ValueError: it is not.

    Example:
        >>> import torch
        >>> check_rng(torch.Generator().manual_seed(5)).initial_seed()
        5
    """
    from torch import Generator

    if not isinstance(generator, Generator):
        raise fail("generator", "a torch.Generator", type(generator).__name__, "pass torch.Generator()")
    return generator


def check_finite(name: str, x: Tensor) -> Tensor:
    """Return `x` if every entry is finite.

    Raises:
        ValueError: an entry is NaN or infinite.

    Example:
        >>> import torch
        >>> check_finite("x", torch.zeros(2))
        tensor([0., 0.])
    """
    bad = int((~x.isfinite()).sum())
    if bad:
        raise fail(name, "finite values", f"{bad} NaN or infinite of {x.numel()}", "remove or impute them first")
    return x


def check_points(name: str, x: Tensor) -> Tensor:
    """Return `x` if it holds at least one point (N, *event), floating and finite.

    Raises:
        ValueError: there is no point, or its entries are not floating or not finite.

    Example:
        >>> import torch
        >>> check_points("data", torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """
    if not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise fail(name, "floating points (N, *event), N ≥ 1", f"{tuple(x.shape)} of {x.dtype}", "convert them")
    return check_finite(name, x)


def check_event(name: str, x: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """Return `x` if its shape is (N, event shape).

    Raises:
        ValueError: the shape differs.

    Example:
        >>> import torch
        >>> check_event("z", torch.zeros(3, 2), (2,)).shape
        torch.Size([3, 2])
    """
    if x.ndim == 0 or tuple(x.shape[1:]) != tuple(event_shape):
        want = ", ".join(["N", *map(str, event_shape)])
        raise fail(name, f"shape ({want})", tuple(x.shape), "reshape it, or pass the model it was made for")
    return x
