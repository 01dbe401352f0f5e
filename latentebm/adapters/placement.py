"""What a wrapped decoder is put into: a precision, a device, and a label beside its code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_shares, fail

__all__ = ["Labelled", "Offloaded", "placed"]


class Labelled(nn.Module):
    r"""A conditional decoder whose label is drawn with the code, as the last number u of it.

    .. math:: y = \min\{k : \Phi(u) \le p_0 + \dots + p_k\}, \quad u \sim N(0, 1), \quad x = \mathrm{decoder}(z, y)

    Example:
        >>> decoder = Labelled(lambda z, y: z + 10 * y[:, None], [0.5, 0.5], (1,))
        >>> decoder(torch.tensor([[0.1, -1.0], [0.1, 1.0]]))
        tensor([[ 0.1000],
                [10.1000]])
    """

    ends: Tensor

    def __init__(self, decoder: Callable[..., Any], shares: Sequence[float], latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        values = torch.tensor(check_shares("labels", shares, len(shares)), dtype=torch.float64)
        self.decoder, self.latent_shape = decoder, latent_shape
        self.register_buffer("ends", torch.special.ndtri(values.cumsum(0)[:-1].clamp(0, 1)).float())

    def forward(self, codes: Tensor) -> Any:
        """What the decoder makes of codes (N, d + 1)."""
        label = torch.searchsorted(self.ends.to(codes), codes[:, -1].contiguous())
        return self.decoder(codes[:, :-1].reshape(-1, *self.latent_shape), label)


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
    if offload and device is None:
        raise fail("device", "where an offloaded decoder works", "None", 'pass for example device="cuda"')
    moved = part.to(dtype=dtype) if dtype else part
    if offload and device is not None:
        return Offloaded(moved, device)
    return moved.to(device) if device else moved
