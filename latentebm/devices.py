"""Where tensors live: the device that a setting names, and what to do where its memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from latentebm.checks import check_device, fail

__all__ = ["beside", "device_of", "pick_device", "within_memory"]

ACCELERATORS = ("cuda", "xpu", "mps")  # in the order in which ``auto`` looks for them


def pick_device(name: str | torch.device) -> torch.device:
    """The device of a name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``, or another that torch knows.

    With ``auto`` an accelerator is used when there is one.

    Raises:
        ValueError: no such device on this machine.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name != "auto":
        return check_device("device", name)
    return torch.device(next((kind for kind in ACCELERATORS if getattr(torch, kind).device_count()), "cpu"))


def device_of(model: object, default: torch.device | str = "cpu") -> torch.device:
    """The device of a module's first parameter or buffer; the default where it has none.

    Example:
        >>> device_of(nn.Linear(1, 1)), device_of(abs)
        (device(type='cpu'), device(type='cpu'))
    """
    if not isinstance(model, nn.Module):
        return torch.device(default)
    held = next(model.parameters(), next(model.buffers(), None))
    return torch.device(default) if held is None else held.device


def beside(model: object, x: Tensor) -> Tensor:
    """A tensor on the device of the model it is given to."""
    return x.to(device_of(model, x.device))


@contextmanager
def within_memory(**sizes: int) -> Iterator[None]:
    """A block that says, where a device's memory runs out in it, which of the sizes it goes by to lower and to what.

    Raises:
        ValueError: in the place of torch's own error.

    Example:
        >>> with within_memory(chunk=4096):
        ...     raise torch.cuda.OutOfMemoryError
        Traceback (most recent call last):
        ValueError: chunk: expected what fits into the device's memory, got chunk=4096; pass chunk=1024, or device="cpu"
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        got = ", ".join(f"{name}={size}" for name, size in sizes.items())
        fix = ", ".join(f"{name}={max(1, size // 4)}" for name, size in sizes.items())
        name = "/".join(sizes)
        raise fail(name, "what fits into the device's memory", got, f'pass {fix}, or device="cpu"') from error
