"""Debias a trained generator with an energy-based tilt and a small reference set, without retraining it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

# The stub beside this file says where each public name lives, to type checkers and here.
_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
_HOME = {name.name: str(line.module) for line in _STUB if isinstance(line, ast.ImportFrom) for name in line.names}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and ``latentebm --help`` needs none of it."""
    if name not in _HOME:
        raise AttributeError(f"module 'latentebm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
