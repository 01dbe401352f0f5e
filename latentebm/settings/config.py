"""Settings from files: TOML, JSON, or the ``config.json`` of an earlier run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from latentebm.checks import fail
from latentebm.disk.manifest import LARGEST, read_json, sealed
from latentebm.settings.fields import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_config"]


def read_config(path: Path | str, declaring: type[Settings] = Settings) -> dict[str, Any]:
    """Read settings from a .json or .toml file, or from the ``config.json`` of an earlier run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it can't be parsed, or names unknown settings.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "c.toml"
        >>> _ = path.write_text("latent_dim = 10")
        >>> read_config(path)
        {'latent_dim': 10}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config: expected a file at {path}, found none; check the path")
    found = _toml(path) if path.suffix == ".toml" else read_json(path, "config")
    if "manifest" in found or "sha256" in found:
        sealed(path, found)
    values = found.get("settings", found)
    known = {field.name for field in fields(declaring)}
    values = values if isinstance(values, Mapping) else {}
    unknown = sorted(set(values) - known)
    if unknown or not values:
        got = f"{', '.join(unknown) or 'none'} in {path}"
        raise fail("config", f"settings among {', '.join(sorted(known))}", got, "remove or rename them")
    return dict(values)


def _toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise fail("config", f"valid TOML in {path}", str(error), "fix the syntax error") from None
