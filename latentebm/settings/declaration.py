"""How a setting is declared: one dataclass field that knows its default, its help text and its panel."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from latentebm.checks import check_choice, check_int, check_number

__all__ = ["PANELS", "Declared", "check_plain", "described", "setting", "settings_of"]

PANELS = ("Data", "Model", "Tilt", "Draws", "Run")
T = TypeVar("T")


@dataclass(frozen=True)
class Declared:
    """One setting as it was declared.

    Attributes:
        name: of the field; the command line spells it with dashes.
        default: its value where none is given.
        kind: the type the command line reads.
        help: what it is, in one sentence.
        panel: heading it stands under in ``--help``.
        of: choice and field that it sets, such as ``objective.penalty``; empty for none.
        names: what a text may be; empty for any.
        low: least number, itself allowed for whole ones and zero; None for any.
    """

    name: str
    default: Any
    kind: type
    help: str
    panel: str
    of: str
    names: tuple[str, ...] = ()
    low: float | None = None


def setting(
    default: Any, help: str, panel: str, *, kind: type | None = None, of: str = "",  # noqa: A002
    names: tuple[str, ...] = (), low: float | None = None,
) -> Any:  # fmt: skip
    """A dataclass field that declares a setting; see `Declared` for the arguments.

    Raises:
        TypeError: neither the default nor `kind` says the type (a mistake of ours, not of a user).

    Example:
        >>> @dataclass
        ... class Cooling:
        ...     rate: float = setting(0.5, "share of the temperature kept by each step", "Tilt")
        >>> [(s.name, s.kind.__name__, s.default) for s in settings_of(Cooling)]
        [('rate', 'float', 0.5)]
    """
    if default is None and kind is None:
        raise TypeError(f"kind: expected a type for a setting without default, got none; declare it ({help})")
    more = {"panel": panel, "of": of, "names": names, "low": low}
    return dataclasses.field(default=default, metadata={"kind": kind or type(default), "help": help, **more})


def settings_of(declaring: type) -> Iterator[Declared]:
    """The settings that a dataclass declares, in order; its other fields are left out.

    Example:
        >>> from latentebm.settings.fields import Settings
        >>> next(settings_of(Settings)).name
        'latent_dim'
    """
    for field in dataclasses.fields(declaring):
        if "help" in field.metadata:
            yield Declared(field.name, field.default, **field.metadata)


def check_plain(settings: Any) -> None:
    """Check the names and numbers of settings each by itself, as they were declared, before anything is imported.

    Raises:
        ValueError: a name is none of those declared, or a number is too low.

    Example:
        >>> from latentebm.settings.fields import DebiaserSettings
        >>> check_plain(DebiaserSettings(sampler="mla"))
        Traceback (most recent call last):
        ValueError: sampler: expected one of snis, langevin, mala, pmc, hmc, nuts, auto, got 'mla'; pass for example ...
    """
    for declared in settings_of(type(settings)):
        value = getattr(settings, declared.name)
        if declared.names and isinstance(value, str):
            check_choice(declared.name, value, declared.names)
        if declared.low is None or value is None:
            continue
        if declared.kind is int:
            check_int(declared.name, value, low=int(declared.low))
        else:
            check_number(declared.name, value, low=declared.low)


def described(declaring: type[T]) -> type[T]:
    """Class decorator: put the settings where the docstring says ``{settings}``.

    Example:
        >>> @described
        ... @dataclass
        ... class Cooling:
        ...     '''Cools.
        ...
        ...     Arguments:
        ...         {settings}
        ...     '''
        ...     rate: float = setting(0.5, "share kept by each step", "Tilt")
        >>> "rate: share kept by each step (0.5)" in Cooling.__doc__
        True
    """
    texts = (f"{s.name}: {s.help}{'' if s.default is None else f' ({s.default})'}" for s in settings_of(declaring))
    lines = [textwrap.fill(text, 120, initial_indent=" " * 8, subsequent_indent=" " * 12) for text in texts]
    declaring.__doc__ = (declaring.__doc__ or "").replace("{settings}", "\n".join(lines).lstrip())
    return declaring
