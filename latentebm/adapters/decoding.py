"""A decoder in use: codes in its own shape, precision and batches, data where its output holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.adapters.probing import data_in, probe
from latentebm.checks import check_event, check_int, fail
from latentebm.models.latent_model import attempt, check_codes, check_eval, probe_codes

__all__ = ["Decoding", "code_shape"]


class Decoding(nn.Module):
    """A decoder and perhaps an encoder, tried on two codes when they are put together.

    Attributes:
        latent_dim: length d of a code.
        data_shape: of one item.
        range: least and greatest number in the data of two codes.
        settings: what else decides what a code decodes to; it cannot be changed.

    Example:
        >>> Decoding(nn.Linear(2, 3), (2,)).decode(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        decoder: Callable[..., Any],
        shape: tuple[int, ...],
        *,
        key: str | int | None = None,
        encoder: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim, self.latent_shape = math.prod(shape), shape
        self.batch_size = None if batch_size is None else check_int("batch_size", batch_size)
        self.settings = settings or {}
        check_eval("decoder", decoder)
        check_eval("encoder", encoder)
        self.decoder, self.key, self.encoder = decoder, key, encoder
        like = next(self.parameters(), torch.empty(0))
        self.dtype, x = like.dtype, probe(decoder, key, shape, like)
        self.data_shape, self.range = tuple(x.shape[1:]), (float(x.min()), float(x.max()))
        if encoder is not None:
            codes = attempt("encoder", encoder, x, "pass an encoder of what the decoder returns")
            check_codes("encoder", codes, len(x), self.latent_dim)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the decoder was made with, to be read only: another setting is another model."""
        return MappingProxyType(self._settings)

    @settings.setter
    def settings(self, given: Mapping[str, Any]) -> None:
        self._settings = dict(given)

    @property
    def differentiable(self) -> bool:
        """Whether `decode` passes a gradient on to the code, which Langevin and NUTS need; tried when asked."""
        with torch.enable_grad():
            z = probe_codes((self.latent_dim,))[:1].to(next(self.parameters(), torch.empty(0))).requires_grad_()
            return self.decode(z).requires_grad

    def decode(self, z: Tensor) -> Tensor:
        """Data (N, *data_shape) of codes (N, d), differentiable where the decoder is."""
        check_event("z", z, (self.latent_dim,))
        # A copy in the decoder's own precision: some decoders write into their input.
        codes = z.reshape(-1, *self.latent_shape).to(self.dtype, copy=True)
        parts = codes.split(self.batch_size or max(1, len(codes)))
        return torch.cat([data_in(self.decoder(part), self.key, len(part)).to(z.dtype) for part in parts])

    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, d) of data; ValueError without an encoder."""
        if self.encoder is None:
            fix = "pass encoder= to WrappedModel, or features= to tilt_generator"
            raise fail("encoder", "a module or function", None, fix)
        return check_codes("encoder", self.encoder(x.to(self.dtype)).to(x.dtype), len(x), self.latent_dim)


def code_shape(size: int | None, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape in which a decoder takes a code of so many numbers, a vector where none is given.

    Example:
        >>> code_shape(3, None), code_shape(3, (3, 1, 1))
        ((3,), (3, 1, 1))
    """
    dim = check_int("latent_dim", size, fix="pass the length of the model's code")
    found = tuple(shape or (dim,))
    if math.prod(found) != dim:
        raise fail("latent_shape", f"a shape of {dim} numbers", found, f"pass for example ({dim}, 1, 1)")
    return found
