"""Settings as the command that gives them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from latentebm.settings.declaration import settings_of
from latentebm.settings.fields import Settings

__all__ = ["as_command"]


def as_command(settings: Mapping[str, Any]) -> str:
    """The ``latentebm debias`` command of plain settings by name; empty where an object of Python's is among them.

    Settings at their defaults, and those of a run's place and machine, are left out.

    Example:
        >>> as_command({"latent_dim": 10, "data": "my images/", "calibrate": True, "objective": "jensen"})
        "latentebm debias --data 'my images/' --latent-dim 10 --objective jensen --calibrate"
        >>> as_command({"objective": {"name": "mine"}})
        ''
    """
    words = ["latentebm", "debias"]
    declared = sorted(settings_of(Settings), key=lambda s: s.name != "data")
    for each in declared:
        value = settings.get(each.name, each.default)
        if not each.panel or value == each.default or each.name in ("out", "overwrite", "device"):
            continue
        if not isinstance(value, str | int | float | list | tuple):
            return ""
        flag = "--" + each.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return shlex.join(words)
