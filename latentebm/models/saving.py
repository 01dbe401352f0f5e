"""Networks as safetensors files: tensors only, never code."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from latentebm.files import write_atomic

__all__ = ["load_weights", "save_weights"]


def save_weights(path: Path | str, module: nn.Module) -> Path:
    """Write a module's state to a safetensors file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    return write_atomic(path, lambda temporary: save_file(state, temporary))


def load_weights(path: Path | str, module: nn.Module) -> None:
    """Load a safetensors file into a module of the same shape.

    Raises:
        FileNotFoundError: no such file.
        RuntimeError: names or shapes differ (from torch).

    Example:
        >>> import tempfile
        >>> first, second = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> load_weights(save_weights(Path(tempfile.mkdtemp()) / "net.safetensors", first), second)
        >>> bool(first.weight == second.weight)
        True
    """
    module.load_state_dict(load_file(path))
