"""What is asked of a decoder when it is wrapped, on two codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from latentebm.checks import fail
from latentebm.models.latent_model import attempt, check_batch, check_function, probe_codes

__all__ = ["data_in", "probe"]

FIX = "pass the latent_dim or latent_shape it was made for"


def data_in(output: Any, key: str | int | None, n: int) -> Tensor:
    """The data of `n` codes in a decoder's output: itself, or what lies under a key.

    Example:
        >>> import torch
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
        >>> import torch
        >>> probe(lambda z: z + torch.randn(()), None, (3,), torch.empty(0))
        Traceback (most recent call last):
        ValueError: decoder: expected the same data for the same codes, got other data at the second time; ...
    """
    z = probe_codes(shape).to(like)

    def decoded(codes: Tensor) -> Tensor:
        return data_in(attempt("decoder", decoder, codes.clone(), FIX), key, len(codes))

    x = decoded(z)
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise fail("decoder", "finite data", "NaN or infinite ones", "use float32 or bfloat16, or mend the decoder")
    check_function("decoder", decoded, z, x)
    return x
