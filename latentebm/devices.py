"""Where tensors live."""

from __future__ import annotations

import torch

from latentebm.checks import check_choice, fail

__all__ = ["pick_device"]


def pick_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu`` or ``cuda``; a GPU is used when there is one."""
    check_choice("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise fail("device", "a CUDA device", "none on this machine", "pass device=auto or cpu")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")
