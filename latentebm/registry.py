"""Choices of a setting: names are shortcuts for objects, and the settings that belong to a choice become its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from latentebm.checks import check_choice, fail

__all__ = ["Option", "Registry", "restored", "stored"]


class Option(NamedTuple):
    """A setting that sets a field of a choice: both names, its value, and the value that asks for nothing."""

    setting: str
    field: str
    value: Any
    default: Any


@dataclass(frozen=True)
class Registry:
    """The choices of one setting by name, the only place that compares their names.

    Attributes:
        setting: the setting's name.
        kinds: a dataclass for each name.
        base: what an object of the user's own must be an instance of.

    Example:
        >>> @dataclass
        ... class Ridge:
        ...     penalty: float = 1.0
        >>> penalties = Registry("penalty", {"ridge": Ridge}, Ridge)
        >>> penalties.make("ridge", [Option("weight", "penalty", 0.5, 1.0)]), penalties.make(Ridge(2.0))
        (Ridge(penalty=0.5), Ridge(penalty=2.0))
    """

    setting: str
    kinds: Mapping[str, type]
    base: type

    def make(self, value: Any, options: Sequence[Option] = ()) -> Any:
        """The object that a name and options stand for; an object stands for itself.

        Raises:
            ValueError: an unknown name, something else than a choice, or an option that the choice does not have.
        """
        if not isinstance(value, str):
            return self._own(value, options)
        kind = self.kinds[check_choice(self.setting, value, self.kinds)]
        taken = {}
        for option in options:
            if option.field in _fields(kind):
                if option.value is not None:
                    taken[option.field] = option.value
            elif _asked(option):
                names = [name for name, other in self.kinds.items() if option.field in _fields(other)]
                needs = " or ".join(f"{self.setting}={name}" for name in names)
                expected, fix = f"{option.default} unless {needs}", f"pass {needs} or leave it out"
                raise fail(option.setting, expected, repr(option.value), fix)
        try:
            return kind(**taken)
        except ValueError as error:  # of a field, which the user knows by the setting's name
            field, colon, rest = str(error).partition(":")
            known = {option.field: option.setting for option in options}
            raise ValueError(known.get(field, field) + colon + rest) from None

    def _own(self, value: Any, options: Sequence[Option]) -> Any:
        if not isinstance(value, self.base):
            expected = f"one of {', '.join(self.kinds)}, or an object of type {self.base.__name__}"
            raise fail(self.setting, expected, repr(value), f"pass for example {self.setting}={next(iter(self.kinds))}")
        for option in filter(_asked, options):
            expected, fix = f"{option.default} beside an object", f"set {option.field} of the {self.setting} itself"
            raise fail(option.setting, expected, repr(option.value), fix)
        return value


def stored(value: Any) -> Any:
    """A setting's value as a file holds it: objects as their class's name and fields, a user's own by its name alone.

    Example:
        >>> @dataclass
        ... class Ridge:
        ...     penalty: float = 1.0
        >>> stored("ridge"), stored(Ridge(2.0)), stored(abs)
        ('ridge', {'kind': 'Ridge', 'penalty': 2.0}, {'own': 'builtins.abs'})
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    from numpy import generic  # here, since --help reads settings and needs no arrays

    if isinstance(value, generic):
        return value.item()
    if dataclasses.is_dataclass(value) and type(value).__module__.split(".")[0] == __package__:
        fields = {field.name: stored(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if not any(isinstance(v, dict) and "own" in v for v in fields.values()):
            return {"kind": type(value).__name__, **fields}
    named = value if hasattr(value, "__qualname__") else type(value)
    return {"own": f"{named.__module__}.{named.__qualname__}"}


def restored(setting: str, value: Any, known: Mapping[str, type]) -> Any:
    """What `stored` wrote, as an object of one of the known classes; anything else as it is.

    Raises:
        ValueError: a class that is not known, fields that it does not have, or an object that a file cannot hold.

    Example:
        >>> @dataclass
        ... class Ridge:
        ...     penalty: float = 1.0
        >>> restored("penalty", {"kind": "Ridge", "penalty": 2.0}, {"Ridge": Ridge})
        Ridge(penalty=2.0)
    """
    if not isinstance(value, Mapping):
        return value
    if "own" in value:
        expected = f"the object that was saved, a {value['own']}"
        raise fail(setting, expected, "its name alone, since files hold no code", f"pass load(…, {setting}=…)")
    kind = known.get(str(value.get("kind")))
    fields = {name: restored(setting, v, known) for name, v in value.items() if name != "kind"}
    if kind is None or not set(fields) <= _fields(kind):
        expected = f"a kind of {', '.join(known)}, and its fields"
        raise fail(setting, expected, str(dict(value)), "correct the name or the fields")
    return kind(**fields)


def _asked(option: Option) -> bool:
    """Whether the option asks for anything: 0, False and None ask alike for nothing where that is the default."""
    return (option.value or None) != (option.default or None)


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
