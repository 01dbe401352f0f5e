"""Other people's models, made to look like ours: a standard normal latent of known length and a `decode`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.adapters.base_law import Labelled, Truncated, check_untruncated
from latentebm.adapters.placement import placed
from latentebm.adapters.probing import data_in, probe
from latentebm.checks import check_event, check_int, fail
from latentebm.models.latent_model import attempt, check_codes, check_eval, probe_codes

__all__ = ["WrappedGenerator", "WrappedModel"]


class WrappedModel(nn.Module):
    r"""A decoder of any make: how long its code is, in which shape it takes it, where its output is found.

    .. math:: x = \mathrm{decode}(z), \quad z \sim N(0, I_d)

    Attributes:
        data_shape: of one item.
        range: least and greatest number in the data of two codes.
        settings: what else decides what a code decodes to; it cannot be changed.

    Arguments:
        decoder: module or function from codes to data: the generator of a GAN, the ``decoder`` of a pythae model.
        latent_dim: length d of the code; None takes the decoder's own ``latent_dim``.
        latent_shape: shape in which the decoder takes a code, such as (d, 1, 1) of a convolutional GAN; None for (d,).
        key: where the data are in the decoder's output, such as ``"reconstruction"``; None if it is the data itself.
        encoder: module or function from data to codes (N, d), or None.
        batch_size: codes decoded at once; None decodes all that are passed.
        labels: prior probabilities of a conditional decoder's labels 0 … K − 1, which it takes beside the code. The
            label is then a part of the base distribution, the last number of the code, and tilted together with z.
        truncation: where the normal codes that the decoder was trained on or documented for were cut off, ±t; standard
            normal codes are mapped to these. A decoder that names a truncation is refused without.
        dtype: precision that the decoder is brought to; None leaves it.
        device: where it decodes; None leaves it where it is.
        offload: whether it stays on the processor and goes to `device` for each call alone.
        settings: what else decides what a code decodes to, such as a prompt: a saved tilt is refused over others.

    Raises:
        ValueError: codes do not decode to finite data of one `data_shape` each, the same at every time and in every
            batch, do not encode to codes again, or are not standard normal.

    Example:
        >>> gan = nn.Sequential(nn.Flatten(), nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
        >>> model = WrappedModel(gan, 3, latent_shape=(3, 1, 1))
        >>> model.decode(torch.zeros(5, 3)).shape, model.data_shape
        (torch.Size([5, 1, 4, 4]), (1, 4, 4))
    """

    def __init__(
        self,
        decoder: Callable[..., Any],
        latent_dim: int | None = None,
        *,
        latent_shape: tuple[int, ...] | None = None,
        key: str | int | None = None,
        encoder: Callable[..., Any] | None = None,
        batch_size: int | None = None,
        labels: Sequence[float] | None = None,
        truncation: float | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        offload: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        size = getattr(decoder, "latent_dim", None) if latent_dim is None else latent_dim
        self.latent_dim = check_int("latent_dim", size, fix="pass the length of the model's code")
        self.latent_shape = _shaped(latent_shape, self.latent_dim)
        self.batch_size = None if batch_size is None else check_int("batch_size", batch_size)
        chosen = {"labels": labels and list(labels), "truncation": truncation}
        self.settings = MappingProxyType(dict(settings or {}) | {k: v for k, v in chosen.items() if v is not None})
        if truncation is None:
            check_untruncated(decoder)
        elif truncation < math.inf:
            decoder = Truncated(decoder, truncation)
        if labels is not None:
            decoder = Labelled(decoder, labels, self.latent_shape)
            self.latent_dim, self.latent_shape = self.latent_dim + 1, (self.latent_dim + 1,)
        decoder = placed(decoder, dtype, device, offload)
        encoder = placed(encoder, dtype, device, offload) if isinstance(encoder, nn.Module) else encoder
        check_eval("decoder", decoder)
        check_eval("encoder", encoder)
        self.decoder, self.key, self.encoder = decoder, key, encoder
        like = next(self.parameters(), torch.empty(0))
        self.dtype, x = like.dtype, probe(decoder, key, self.latent_shape, like)
        self.data_shape, self.range = tuple(x.shape[1:]), (float(x.min()), float(x.max()))
        if encoder is not None:
            codes = attempt("encoder", encoder, x, "pass an encoder of what the decoder returns")
            check_codes("encoder", codes, len(x), self.latent_dim)

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


def _shaped(shape: tuple[int, ...] | None, size: int) -> tuple[int, ...]:
    found = tuple(shape or (size,))
    if math.prod(found) != size:
        raise fail("latent_shape", f"a shape of {size} numbers", found, f"pass for example ({size}, 1, 1)")
    return found


WrappedGenerator = WrappedModel  # the name it had up to version 0.1
