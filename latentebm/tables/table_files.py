"""A fitted table model as files: weights in safetensors, columns and moments in JSON, never code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from latentebm.checks import fail
from latentebm.disk.manifest import as_written, load_config
from latentebm.models.saving import load_weights, save_model
from latentebm.tables.column_codes import Column
from latentebm.tables.moments_of_rows import Moment, Term
from latentebm.tables.row_model import RowModel
from latentebm.tables.row_tilt import CodeEnergy, RowTilt
from latentebm.tables.table_code import TableCode

if TYPE_CHECKING:
    from latentebm.tables.table_debiaser import TableDebiaser

__all__ = ["load_table_model", "save_table_model"]

SETTINGS = ("width", "steps", "lr", "pool", "seed", "verbose")


def save_table_model(model: TableDebiaser, folder: Path | str) -> Path:
    """Write ``model.safetensors``, the reference's ``energy.safetensors`` if there is one, and ``config.json``."""
    if not isinstance(model.model_, RowModel):
        fix = "save your generator by its own means, and fit the tilt again"
        raise fail("model", "the package's own RowModel", type(model.model_).__name__, fix)
    modules: dict[str, Any] = {"model": model.model_}
    if model.tilt_.energy is not None:
        modules["energy"] = model.tilt_.energy
    learned = {
        "columns": [plain({f.name: getattr(c, f.name) for f in fields(c)}) for c in model.code_.columns],
        "moments": [plain(asdict(m)) for m in model.tilt_.moments],
        "theta": model.tilt_.theta.tolist(),
        "heldout_gain": model.heldout_gain_,
        "heldout_nats": model.heldout_nats_,
    }
    return save_model(folder, {name: getattr(model, name) for name in SETTINGS}, modules, learned)


def load_table_model(kind: type[TableDebiaser], folder: Path | str) -> TableDebiaser:
    """The estimator that `save_table_model` wrote."""
    config = load_config(folder)
    with as_written(Path(folder) / "config.json"):
        if "columns" not in config["learned"]:
            raise fail("run", "a folder of a table model", str(folder), "pass one that latentebm table wrote")
        return _loaded(kind, folder, config)


def _loaded(kind: type[TableDebiaser], folder: Path | str, config: dict[str, Any]) -> TableDebiaser:
    learned, shapes = config["learned"], config["models"]
    model = kind(**config["debiaser"])
    model.code_ = TableCode([_column(restored(c)) for c in learned["columns"]])
    model.model_ = RowModel(**shapes["model"])
    energy = CodeEnergy(**shapes["energy"]) if "energy" in shapes else None
    for name, module in {"model": model.model_, "energy": energy}.items():
        if module is not None:
            load_weights(Path(folder) / f"{name}.safetensors", module)
            module.requires_grad_(False).eval()
    moments = [_moment(restored(m)) for m in learned["moments"]]
    model.tilt_ = RowTilt(moments, np.array(learned["theta"], dtype=float), energy)
    model.heldout_gain_, model.heldout_nats_ = learned["heldout_gain"], learned["heldout_nats"]
    return model


def plain(value: Any) -> Any:
    """A value in the types of JSON; what JSON has no type for becomes {"type": …}.

    Example:
        >>> plain(pd.Interval(0, 5)), restored(plain(pd.Interval(0, 5)))
        ({'type': 'interval', 'value': [0, 5, 'right']}, Interval(0, 5, closed='right'))
    """
    if isinstance(value, pd.Interval):
        return {"type": "interval", "value": [plain(value.left), plain(value.right), value.closed]}
    if isinstance(value, pd.Timestamp | pd.Timedelta):
        return {"type": type(value).__name__.lower(), "value": str(value)}
    if isinstance(value, pd.CategoricalDtype):
        index = value.categories
        return {"type": "categorical", "value": [plain(index.tolist()), str(index.dtype), bool(value.ordered)]}
    if isinstance(value, np.dtype | pd.api.extensions.ExtensionDtype):
        return {"type": "dtype", "value": str(value)}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def restored(value: Any) -> Any:
    """What `plain` made plain."""
    if isinstance(value, list):
        return tuple(restored(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "type" not in value:
        return {k: restored(v) for k, v in value.items()}
    kind, inner = value["type"], restored(value["value"])
    if kind == "categorical":
        categories, dtype, ordered = inner
        index = pd.Index(categories) if dtype.startswith("interval") else pd.Index(categories, dtype=dtype)
        return pd.CategoricalDtype(index, ordered)
    made: dict[str, Any] = {
        "interval": lambda v: pd.Interval(*v),
        "timestamp": pd.Timestamp,
        "timedelta": pd.Timedelta,
        "dtype": pd.api.types.pandas_dtype,
    }
    return made[kind](inner)


def _column(parts: dict[str, Any]) -> Column:
    return Column(**parts)


def _moment(parts: dict[str, Any]) -> Moment:
    return Moment(**{**parts, "terms": tuple(Term(**t) for t in parts["terms"])})
