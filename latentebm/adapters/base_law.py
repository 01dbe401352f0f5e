"""What a decoder's codes are drawn from, as a map of standard normal numbers: cut-off codes, labels beside the code."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_number, check_shares, fail

__all__ = ["Labelled", "Truncated", "check_untruncated"]


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


def check_untruncated(decoder: object) -> None:
    """Raise a ValueError where a decoder says that its codes were truncated, or not standard normal.

    Example:
        >>> def biggan(z, truncation): return z
        >>> check_untruncated(biggan)
        Traceback (most recent call last):
        ValueError: truncation: expected where the decoder's normal codes were cut off, got None for a decoder that ...
    """
    fix = "pass truncation=, for example 0.4, or inf where codes are not cut off"
    call = decoder.forward if isinstance(decoder, nn.Module) else decoder
    try:
        takes = "truncation" in inspect.signature(call).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):  # built-in functions have no signature
        takes = False
    if takes or getattr(decoder, "truncation", None) is not None:
        expected = "where the decoder's normal codes were cut off"
        raise fail("truncation", expected, "None for a decoder that names a truncation", fix)
    law = next((getattr(decoder, name) for name in ("prior", "base_dist", "base") if hasattr(decoder, name)), None)
    if isinstance(law, torch.distributions.Distribution) and not _is_normal(law):
        fix = "pass truncation= where it is a truncated normal, or a decoder that maps normal codes to its own"
        raise fail("decoder", "standard normal codes", f"codes of {law}", fix)


def _is_normal(law: torch.distributions.Distribution) -> bool:
    """Whether a distribution has the log-density of a standard normal one."""
    shape = (5, *law.batch_shape, *law.event_shape)
    points = torch.linspace(-2, 2, 5).view(-1, *[1] * (len(shape) - 1)).expand(shape)
    support = law.support
    if support is not None and not bool(support.check(points).all()):
        return False
    wanted = -0.5 * (points.square() + math.log(2 * math.pi))
    found = law.log_prob(points)
    return torch.allclose(found.reshape(5, -1).sum(1), wanted.reshape(5, -1).sum(1), atol=1e-3)
