"""What a decoder's codes are drawn from, as a map of standard normal numbers: cut-off codes, labels beside the code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.adapters.probing import check_untruncated
from latentebm.checks import check_number, check_shares

__all__ = ["Labelled", "Truncated", "standard_codes"]


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


class Truncated(nn.Module):
    r"""A decoder of codes from a normal distribution that was cut off at ±t, fed from standard normal ones.

    .. math:: z = \Phi^{-1}\big(\Phi(-t) + u' (\Phi(t) - \Phi(-t))\big), \quad u' = \Phi(u), \quad u \sim N(0, 1)

    Example:
        >>> Truncated(lambda z: z, 1.0)(torch.tensor([-9.0, 0.0, 9.0]))
        tensor([-1.,  0.,  1.])
    """

    def __init__(self, decoder: Callable[..., Any], limit: float) -> None:
        super().__init__()
        self.decoder, self.limit = decoder, check_number("truncation", limit, low=0, open_low=True)

    def forward(self, codes: Tensor, *label: Tensor) -> Any:
        """What the decoder makes of codes whose numbers are mapped into (−t, t)."""
        low = 0.5 * math.erfc(self.limit / math.sqrt(2))
        inside = low + (1 - 2 * low) * torch.special.ndtr(codes.double())
        return self.decoder(torch.special.ndtri(inside).clamp(-self.limit, self.limit).to(codes), *label)


def standard_codes(
    decoder: Callable[..., Any], shape: tuple[int, ...], labels: Sequence[float] | None, truncation: float | None
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """A decoder as a function of standard normal codes that hold all it draws, and the shape of one such code.

    Example:
        >>> standard_codes(lambda z, y: z, (2, 1, 1), [0.5, 0.5], None)[1]
        (3,)
    """
    if truncation is None:
        check_untruncated(decoder)
    elif truncation != math.inf:
        decoder = Truncated(decoder, truncation)
    return (decoder, shape) if labels is None else (Labelled(decoder, labels, shape), (math.prod(shape) + 1,))
