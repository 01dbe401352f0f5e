"""What is asked of a decoder when it is wrapped: data of two codes, and whether its codes are standard normal."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.models.latent_model import attempt, check_batch, check_function, probe_codes

__all__ = ["check_untruncated", "data_in", "is_normal", "probe"]

FIX = "pass the latent_dim or latent_shape it was made for, and labels= where it takes them and only there"


def data_in(output: Any, key: str | int | None, n: int) -> Tensor:
    """The data of `n` codes in a decoder's output: itself, or what lies under a key.

    Example:
        >>> data_in({"x": torch.ones(2, 3)}, "x", 2).shape
        torch.Size([2, 3])
    """
    if key is not None:
        try:
            output = output[key]
        except (KeyError, IndexError, TypeError):
            names = isinstance(output, Mapping)
            found = ", ".join(map(repr, output)) if names else f"the indices of a {type(output).__name__}"
            fix = "pass where the data are in the decoder's output"
            raise fail("key", f"one of {found}", repr(key), fix) from None
    return check_batch("decoder", output, n, "pass key= if it returns several things, else return the data")


def probe(decoder: Callable[..., Any], key: str | int | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Data of two codes, if the decoder gives finite ones, the same again, and each by itself.

    Example:
        >>> calls = iter(range(9))
        >>> probe(lambda z: z + next(calls), None, (3,), torch.empty(0))
        Traceback (most recent call last):
        ValueError: decoder: expected the same data for the same codes, got other data at the second time; ...
    """
    z = probe_codes(shape).to(like)

    def decoded(codes: Tensor) -> Tensor:
        return data_in(attempt("decoder", decoder, codes.clone(), FIX), key, len(codes))

    x = decoded(z)
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise fail("decoder", "finite data", "NaN or infinite ones", "use float32 or bfloat16, or correct the decoder")
    check_function("decoder", decoded, z, x)
    return x


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
    if isinstance(law, torch.distributions.Distribution) and not is_normal(law):
        fix = "pass truncation= where it is a truncated normal, or a decoder that maps normal codes to its own"
        raise fail("decoder", "standard normal codes", f"codes of {law}", fix)


def is_normal(law: torch.distributions.Distribution, like: Tensor | None = None) -> bool:
    """Whether a distribution, on the device of `like`, has the log-density of a standard normal one.

    Example:
        >>> is_normal(torch.distributions.Normal(torch.zeros(2), 1.0)), is_normal(torch.distributions.Normal(0.0, 2.0))
        (True, False)
    """
    shape = (5, *law.batch_shape, *law.event_shape)
    points = torch.linspace(-2, 2, 5).view(-1, *[1] * (len(shape) - 1)).expand(shape)
    points = points if like is None else points.to(like)
    support = law.support
    if support is not None and not bool(support.check(points).all()):
        return False
    wanted = -0.5 * (points.square() + math.log(2 * math.pi))
    found = law.log_prob(points)
    return torch.allclose(found.reshape(5, -1).sum(1), wanted.reshape(5, -1).sum(1), atol=1e-3)
