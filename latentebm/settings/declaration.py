"""How a setting is declared: one dataclass field that knows its default, its help text and its panel."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["PANELS", "Declared", "described", "setting", "settings_of"]

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
    """

    name: str
    default: Any
    kind: type
    help: str
    panel: str
    of: str


def setting(default: Any, help: str, panel: str, *, kind: type | None = None, of: str = "") -> Any:  # noqa: A002
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
    return dataclasses.field(
        default=default, metadata={"kind": kind or type(default), "help": help, "panel": panel, "of": of}
    )


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
