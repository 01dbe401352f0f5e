"""Where and in which precision a wrapped decoder works."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.devices import pick_device

__all__ = ["Offloaded", "placed"]


class Offloaded(nn.Module):
    """A module on the processor that goes to a device for each call alone.

    Example:
        >>> Offloaded(nn.Identity(), "cpu")(torch.ones(1))
        tensor([1.])
    """

    def __init__(self, module: nn.Module, device: torch.device | str) -> None:
        super().__init__()
        self.module, self.device = module.to("cpu"), torch.device(device)

    def forward(self, *inputs: Tensor) -> Any:
        """The module's output for inputs on any device, on the processor."""
        self.module.to(self.device)
        try:
            out = self.module(*(x.to(self.device) for x in inputs))
        finally:
            self.module.to("cpu")
        return out.to("cpu") if isinstance(out, Tensor) else out


def placed(part: Any, dtype: torch.dtype | None, device: torch.device | str | None, offload: bool) -> Any:
    """A decoder or encoder in a precision, on a device, or brought there for each call.

    Example:
        >>> placed(nn.Linear(1, 1), torch.float64, None, False).weight.dtype
        torch.float64
    """
    if not isinstance(part, nn.Module):
        if part is not None and (dtype or device or offload):
            fix = "pass a module, or leave dtype, device and offload out"
            raise fail("decoder", "a module, which can be moved", type(part).__name__, fix)
        return part
    if dtype is not None and not dtype.is_floating_point:
        raise fail("dtype", "a floating-point type", dtype, "pass for example torch.float16")
    device = None if device is None else pick_device(device)
    if offload and device is None:
        raise fail("device", "where an offloaded decoder works", "None", 'pass for example device="cuda"')
    moved = part.to(dtype=dtype) if dtype else part
    if offload and device is not None:
        return Offloaded(moved, device)
    return moved.to(device) if device else moved
