"""The state of something that goes on later, in one safetensors file: tensors, numbers and text, hashed, no pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentebm.checks import fail
from latentebm.files import write_atomic

__all__ = ["digest", "load_tensors", "read_state", "save_tensors", "write_state"]


def write_state(path: Path | str, value: Any) -> Path:
    """Write nested dicts, lists, tensors, numbers and text to a file, whole or not at all.

    Raises:
        TypeError: the value holds something else.

    Example:
        >>> import tempfile
        >>> path = write_state(Path(tempfile.mkdtemp()) / "a.safetensors", {"step": 3, "moments": [torch.zeros(2)]})
        >>> read_state(path)
        {'step': 3, 'moments': [tensor([0., 0.])]}
    """
    text, tensors = _packed(value)
    metadata = {"state": text, "sha256": _hash(text, tensors)}
    # A file without any tensor is none to some versions.
    return write_atomic(path, lambda p: save_file(tensors or {"empty": torch.zeros(1)}, p, metadata=metadata))


def read_state(path: Path | str) -> Any:
    """Read what `write_state` wrote, each tensor on the device it was on; lists in the place of tuples.

    Raises:
        ValueError: the file is damaged, or another program's.

    Example:
        >>> read_state("/dev/null")
        Traceback (most recent call last):
        ValueError: checkpoint: expected a file as it was written, got /dev/null, which is not; delete it to begin ...
    """
    try:
        if not Path(path).is_file():  # of a pipe nobody would see the end
            raise ValueError
        with safe_open(path, framework="pt") as file:
            text, known = file.metadata()["state"], file.metadata()["sha256"]
            tensors = {name: file.get_tensor(name) for name in file.keys() if name != "empty"}  # noqa: SIM118
        if _hash(text, tensors) == known:
            return _unpacked(json.loads(text), tensors)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        pass  # all are one fault
    fix = "delete it to begin that part again"
    raise fail("checkpoint", "a file as it was written", f"{path}, which is not", fix)


def save_tensors(path: Path | str, tensors: dict[str, Tensor], **metadata: str) -> Path:
    """Write tensors by name, with more text and a digest that `load_tensors` checks."""
    known = {**metadata, "digest": digest(sorted(tensors.items()))}
    return write_atomic(path, lambda temporary: save_file(tensors, temporary, known))


def load_tensors(path: Path | str, name: str = "run") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or another program's.

    Example:
        >>> load_tensors("/dev/null")
        Traceback (most recent call last):
        ValueError: run: expected a safetensors file, got /dev/null (...); restore it or save again
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{name}: expected a file at {path}, found none; check the path")
    try:
        if not Path(path).is_file():  # of a pipe nobody would see the end
            raise ValueError("no plain file")
        found = load_file(path)
        with safe_open(path, framework="pt") as file:
            known = (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise fail(name, "a safetensors file", f"{path} ({reason})", "restore it or save again") from None
    if known is not None and known != digest(sorted(found.items())):
        raise fail(name, "tensors as they were written", f"others in {path}", "restore it or save again")
    return found


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a nested value, the same wherever its tensors lie.

    Example:
        >>> digest([1, torch.ones(2)]) == digest([1, torch.ones(2)]) != digest([1, torch.zeros(2)])
        True
    """
    text, tensors = _packed(value, devices=False)
    return _hash(text, tensors)


def _packed(value: Any, devices: bool = True) -> tuple[str, dict[str, Tensor]]:
    """The value as JSON whose tensors are named, and those tensors."""
    tensors: dict[str, Tensor] = {}

    def pack(part: Any) -> Any:
        if isinstance(part, Tensor):
            name = str(len(tensors))
            tensors[name] = part.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name, "device": str(part.device) if devices else ""}
        if isinstance(part, dict):
            return {"dict": [[pack(k), pack(v)] for k, v in part.items()]}
        if isinstance(part, list | tuple):
            return [pack(each) for each in part]
        if part is None or isinstance(part, bool | int | float | str):
            return part
        raise TypeError(f"state: expected tensors, numbers and text, got {type(part).__name__}")

    return json.dumps(pack(value)), tensors


def _unpacked(part: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(part, list):
        return [_unpacked(each, tensors) for each in part]
    if not isinstance(part, dict):
        return part
    if "tensor" in part:
        return tensors[part["tensor"]].to(part["device"])
    return {_unpacked(k, tensors): _unpacked(v, tensors) for k, v in part["dict"]}


def _hash(text: str, tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
