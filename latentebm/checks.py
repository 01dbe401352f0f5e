"""Checks of arguments: each returns what it checked, or raises the ValueError of `fail`; and names made plain."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Not at run time: settings are checked before torch, which takes seconds to import, is needed.
    from torch import Generator, Tensor, device

__all__ = [
    "check_choice",
    "check_device",
    "check_device_name",
    "check_event",
    "check_finite",
    "check_int",
    "check_number",
    "check_points",
    "check_rng",
    "check_shares",
    "fail",
    "in_markdown",
    "visible",
]


LARGEST = 2**63 - 1  # which tensors and generators take


def fail(name: str, expected: str, got: object, fix: str) -> ValueError:
    """The error that every check raises, ``name: expected …, got …; fix``."""
    return ValueError(f"{name}: expected {expected}, got {got}; {fix}")


def check_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False, fix: str = ""
) -> float:
    """Return `value` as a float in [low, high], or (low, high] with `open_low`.

    Example:
        >>> check_number("step", 0, low=0, open_low=True)
        Traceback (most recent call last):
        ValueError: step: expected a number above 0, got 0; pass a number above 0
    """
    if high < math.inf:
        expected = f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
    else:
        expected = f"a number above {low:g}" if open_low else f"a number of at least {low:g}"
    fix = fix or f"pass {expected}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise fail(name, expected, repr(value), fix) from None
    if math.isnan(number) or not low <= number <= high or (open_low and number == low):
        raise fail(name, expected, repr(value), fix)
    return number


def check_int(name: str, value: Any, *, low: int = 1, fix: str = "") -> int:
    """Return `value` as an int of at least `low`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < low:
        raise fail(name, f"a whole number of at least {low}", repr(value), fix or f"pass {name}={low} or more")
    if value.__index__() > LARGEST:
        raise fail(name, f"a whole number up to {LARGEST}", repr(value), "pass a smaller one")
    return int(value.__index__())


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Example:
        >>> check_choice("sampler", "sniss", ["snis", "langevin"])
        Traceback (most recent call last):
        ValueError: sampler: expected one of snis, langevin, got 'sniss'; pass for example sampler="snis"
    """
    if not isinstance(value, str) or value not in choices:
        fix = f'pass for example {name}="{next(iter(choices))}"'
        raise fail(name, f"one of {', '.join(choices)}", repr(value), fix)
    return str(value)


def check_shares(name: str, shares: Sequence[float], n: int) -> list[float]:
    """Return `shares` as floats if they are `n` non-negative numbers that sum to one."""
    if len(shares) != n:
        raise fail(name, f"{n} shares, one per class", f"{len(shares)}", "give each class its share")
    values = [check_number(name, s, low=0, high=1) for s in shares]
    if abs(sum(values) - 1) > 1e-6:
        raise fail(name, "shares that sum to 1", f"a sum of {sum(values):.6g}", "divide them by their sum")
    return values


def check_device(name: str, value: Any) -> device:
    """Return the torch.device of a name if this machine has it.

    Example:
        >>> check_device("device", "cuda:99")
        Traceback (most recent call last):
        ValueError: device: expected a device of this machine, got cuda:99; pass for example device="cpu"
    """
    import torch

    fix = f'pass for example {name}="cpu"'
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError):
        raise fail(name, "auto, cpu, cuda, cuda:1, mps or xpu", repr(value), fix) from None
    module: Any = getattr(torch, found.type, None)
    count = module.device_count() if hasattr(module, "device_count") else 0
    if not 0 <= (found.index or 0) < count:  # torch wraps an index beyond 127 to a negative one
        kinds = f"one of {count} {found.type} devices" if count else "a device of this machine"
        raise fail(name, kinds, found, f'pass for example {name}="{found.type}:{count - 1}"' if count else fix)
    return found


def check_device_name(value: str) -> str:
    """Return a device's name as the command line takes it, before torch is imported.

    Example:
        >>> check_device_name("cuda:1")
        'cuda:1'
        >>> check_device_name("gpu")
        Traceback (most recent call last):
        ValueError: device: expected auto, cpu, cuda, cuda:1, mps or xpu, got 'gpu'; pass for example device="cpu"
    """
    if not re.fullmatch(r"auto|(cpu|cuda|hpu|mps|mtia|xpu)(:\d+)?", value):
        raise fail("device", "auto, cpu, cuda, cuda:1, mps or xpu", repr(value), 'pass for example device="cpu"')
    return value


def check_rng(generator: Any) -> Generator:
    """Return `generator` if it is a torch.Generator: without one torch would draw from its global state."""
    from torch import Generator

    if not isinstance(generator, Generator):
        fix = "pass torch.Generator().manual_seed(0)"
        raise fail("generator", "a torch.Generator", type(generator).__name__, fix)
    if generator.device.type != "cpu":
        check_device("generator.device", generator.device)
    return generator


def check_finite(name: str, x: Tensor) -> Tensor:
    """Return `x` if every entry is finite."""
    bad = int((~x.isfinite()).sum())
    if bad:
        raise fail(name, "finite values", f"{bad} NaN or infinite of {x.numel()}", "remove or impute them first")
    return x


def check_points(name: str, x: Tensor) -> Tensor:
    """Return `x` if it holds at least one point (N, *event), floating and finite."""
    if not x.is_floating_point() or x.ndim < 2 or not len(x):
        got = f"shape {tuple(x.shape)} of {x.dtype}"
        raise fail(name, "floats of shape (N, *event), N ≥ 1", got, "reshape them, and convert them by .float()")
    return check_finite(name, x)


def check_event(name: str, x: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """Return `x` if its shape is (N, *event_shape)."""
    if x.ndim == 0 or tuple(x.shape[1:]) != tuple(event_shape):
        want = ", ".join(["N", *map(str, event_shape)])
        raise fail(name, f"shape ({want})", tuple(x.shape), "reshape it, or pass the model it was made for")
    return x


def visible(text: str) -> str:
    r"""The text with signs that a terminal would obey, or that nobody would see, by their numbers; lines stay lines.

    Example:
        >>> print(visible("red \x1b[31m, turned \u202e, café"))
        red \x1b[31m, turned \u202e, café
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t\u3000\u00a0" else _number(sign) for sign in text)


def in_markdown(text: str) -> str:
    r"""The text as one line of Markdown that shows it and does nothing else, in a table's cell too.

    Example:
        >>> print(in_markdown("a|b <img src=x> [c](d) *e*\n# f"))
        a\|b \<img src=x\> \[c\](d) \*e\* # f
    """
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(visible(text).split()))


def _number(sign: str) -> str:
    return f"\\x{ord(sign):02x}" if ord(sign) < 256 else sign.encode("ascii", "backslashreplace").decode()
