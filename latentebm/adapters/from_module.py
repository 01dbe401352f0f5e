"""Other people's models, made to look like ours: a standard normal latent of known length and a `decode`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from latentebm.adapters.base_law import standard_codes
from latentebm.adapters.decoding import Decoding, code_shape
from latentebm.adapters.placement import placed

__all__ = ["WrappedGenerator", "WrappedModel"]


class WrappedModel(Decoding):
    r"""A decoder of any make: how long its code is, in which shape it takes it, where its output is found.

    .. math:: x = \mathrm{decode}(z), \quad z \sim N(0, I_d)

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
        size = getattr(decoder, "latent_dim", None) if latent_dim is None else latent_dim
        own, shape = standard_codes(decoder, code_shape(size, latent_shape), labels, truncation)
        law = {"labels": None if labels is None else list(labels), "truncation": truncation}
        known = dict(settings or {}) | {name: value for name, value in law.items() if value is not None}
        moved = placed(encoder, dtype, device, offload) if isinstance(encoder, nn.Module) else encoder
        used: dict[str, Any] = {"key": key, "encoder": moved, "batch_size": batch_size, "settings": known}
        super().__init__(placed(own, dtype, device, offload), shape, **used)


WrappedGenerator = WrappedModel  # the name it had up to version 0.1
