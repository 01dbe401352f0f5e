"""What decodes codes into data: the protocol every model follows, and the checks of other people's models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_finite, check_int, fail

__all__ = [
    *(
        "LatentModel",
        "attempt",
        "check_batch",
        "check_codes",
        "check_eval",
        "check_function",
        "check_model",
        "probe_codes",
    )
]

BATCH_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class LatentModel(Protocol):
    """Anything with a standard normal latent of length `latent_dim` and a `decode`."""

    latent_dim: int

    def decode(self, z: Tensor) -> Tensor:
        """Data (N, *data_shape) of codes (N, latent_dim)."""
        ...


def check_batch(name: str, x: Any, n: int, fix: str) -> Tensor:
    """Return what a decoder made of `n` codes if it is a tensor of as many items, else raise a ValueError."""
    if not isinstance(x, Tensor) or x.ndim < 1 or len(x) != n:
        raise fail(name, f"a tensor of {n} items for {n} codes", _form(x), fix)
    return x


def check_codes(name: str, z: Any, n: int, latent_dim: int) -> Tensor:
    """Return what an encoder gave for `n` items if it is a finite tensor (n, latent_dim), else raise a ValueError."""
    if not isinstance(z, Tensor) or z.shape != (n, latent_dim):
        raise fail(name, f"codes of shape {(n, int(latent_dim))}", _form(z), "return the codes only")
    return check_finite(name, z)


def _form(x: Any) -> object:
    return tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__


def attempt(name: str, function: Callable[..., Any], x: Tensor, fix: str) -> Any:
    """What a user's function makes of `x`; whatever it raises becomes a ValueError that names it."""
    try:
        with torch.no_grad():
            return function(x)
    except Exception as error:
        got = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise fail(name, f"one that takes a tensor of shape {tuple(x.shape)}", got, fix) from error


def check_model(name: str, model: LatentModel) -> LatentModel:
    """Return `model` if it has a `latent_dim`, decodes such codes, and treats each alike whatever its batch.

    Example:
        >>> check_model("model", nn.Linear(1, 1))
        Traceback (most recent call last):
        ValueError: model: expected decode and latent_dim, got Linear without both; use WrappedModel(...)
    """
    if missing := [a for a in ("decode", "latent_dim") if not hasattr(model, a)]:
        got = f"{type(model).__name__} without {missing[0] if len(missing) == 1 else 'both'}"
        raise fail(name, "decode and latent_dim", got, "use WrappedModel(...)")
    check_int(f"{name}.latent_dim", model.latent_dim)
    check_eval(name, model)
    like = next(cast(nn.Module, model).parameters(), torch.empty(0)) if isinstance(model, nn.Module) else torch.empty(0)
    z = probe_codes((model.latent_dim,)).to(like)
    kept = z.clone()
    fix = "pass the latent_dim it was made for"
    x = check_batch(f"{name}.decode", attempt(f"{name}.decode", model.decode, z, fix), len(z), "use WrappedModel(...)")
    if not torch.equal(z, kept):
        raise fail(f"{name}.decode", "codes left as they are", "codes written into", "use WrappedModel(...)")
    check_function(f"{name}.decode", lambda codes: attempt(f"{name}.decode", model.decode, codes, fix), z, x)
    return model


def probe_codes(latent_shape: tuple[int, ...]) -> Tensor:
    """Two codes that a decoder is tried on."""
    return torch.randn(2, *latent_shape, generator=torch.Generator().manual_seed(0))


def check_function(name: str, decode: Callable[[Tensor], Any], z: Tensor, x: Tensor) -> None:
    """Raise a ValueError unless codes decode to the same data again, and each by itself.

    Data that differ in rounding alone, as other batch sizes may make them, are the same.
    """
    if not _same(decode(z.clone()), x):
        fix = "switch its own noise off, or make the noise a part of the code"
        raise fail(name, "the same data for the same codes", "other data at the second time", fix)
    if not _same(decode(z[:1].clone()), x[:1]):
        fix = "decode each code by itself, for example without normalising over the batch"
        raise fail(name, "data of a code whatever its batch", "other data in another batch", fix)


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = a.double(), b.double()
    return a.shape == b.shape and bool(
        torch.allclose(a, b, rtol=0.02, atol=0.02 * float(b.abs().mean()), equal_nan=True)
    )


def check_eval(name: str, module: object) -> None:
    """Raise a ValueError if a module holds batch normalisation or dropout in training mode."""
    layers = module.modules() if isinstance(module, nn.Module) else ()
    if loose := [type(m).__name__ for m in layers if m.training and isinstance(m, BATCH_LAYERS)]:
        raise fail(name, "evaluation mode", f"{loose[0]} in training mode", "call .eval() on it first")
