"""Other people's generators, made to look like ours: a standard normal latent of known length and a `decode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, fail
from latentebm.models.tilt import Generator

__all__ = ["WrappedGenerator", "check_generator"]

BATCH_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class WrappedGenerator(nn.Module):
    r"""A decoder of any make: how long its code is, what form it wants it in, where its output is found.

    .. math:: x = \mathrm{decode}(z), \quad z \sim N(0, I_d)

    Arguments:
        decoder: module or function from codes to data: the generator of a GAN, the ``decoder`` of a pythae model.
        latent_dim: length d of the code; None asks the decoder's own ``latent_dim``.
        latent_shape: shape the decoder wants one code in, such as (d, 1, 1) of a convolutional GAN; None for (d,).
        key: where the data are in the decoder's output, such as ``"reconstruction"``; None if it is the data itself.
        encoder: module or function from data to codes (N, d), or None.

    Attributes:
        data_shape: shape of one decoded item, found by decoding two codes of zeros.

    Raises:
        ValueError: no latent size, a shape that does not hold it, a decoder in training mode whose layers depend on
            the batch, or an output that is no batch of data.

    References:
        Pythae: Unifying Generative Autoencoders in Python (Chadebec et al., 2022), https://arxiv.org/abs/2206.08309

    Example:
        >>> gan = nn.Sequential(nn.Flatten(), nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
        >>> model = WrappedGenerator(gan, 3, latent_shape=(3, 1, 1))
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
    ) -> None:
        super().__init__()
        size = getattr(decoder, "latent_dim", None) if latent_dim is None else latent_dim
        self.latent_dim = check_int("latent_dim", size, fix="pass the length of the generator's code")
        self.latent_shape = tuple(latent_shape or (self.latent_dim,))
        if torch.Size(self.latent_shape).numel() != self.latent_dim:
            expected = f"a shape of {self.latent_dim} numbers"
            raise fail("latent_shape", expected, self.latent_shape, "pass for example (latent_dim, 1, 1)")
        check_eval("decoder", decoder)
        self.decoder, self.key, self.encoder = decoder, key, encoder
        with torch.no_grad():
            like = next(self.parameters(), torch.empty(0))
            self.data_shape = tuple(self.decode(torch.zeros(2, self.latent_dim).to(like)).shape[1:])

    def decode(self, z: Tensor) -> Tensor:
        """Data (N, *data_shape) of codes (N, d), differentiable where the decoder is.

        Raises:
            ValueError: another code length, or an output that is no batch of data.
        """
        check_event("z", z, (self.latent_dim,))
        x = self.decoder(z.reshape(-1, *self.latent_shape))
        if self.key is not None:
            x = x[self.key]
        if not isinstance(x, Tensor) or x.ndim < 1 or len(x) != len(z):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise fail("decoder", f"a tensor of {len(z)} items for {len(z)} codes", got, "pass key= or wrap it")
        return x

    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, d) of data.

        Raises:
            ValueError: there is no encoder, or it gives something else.
        """
        if self.encoder is None:
            raise fail("encoder", "one given to the generator", "none", "pass encoder=, or compare in features=")
        z = self.encoder(x)
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        if got != (len(x), self.latent_dim):
            raise fail("encoder", f"codes of shape {(len(x), self.latent_dim)}", got, "wrap it to return the codes")
        return z


def check_generator(name: str, model: Generator) -> Generator:
    """Return `model` if it has a whole `latent_dim` and a `decode`, and its layers don't depend on the batch.

    Raises:
        ValueError: something of it is missing, or it is in training mode with batch normalisation or dropout.

    Example:
        >>> check_generator("model", nn.Linear(1, 1))
        Traceback (most recent call last):
        ValueError: model: expected decode and latent_dim, got Linear without both; use WrappedGenerator(...)
    """
    missing = [a for a in ("decode", "latent_dim") if not hasattr(model, a)]
    if missing:
        got = f"{type(model).__name__} without {missing[0] if len(missing) == 1 else 'both'}"
        raise fail(name, "decode and latent_dim", got, "use WrappedGenerator(...)")
    check_int(f"{name}.latent_dim", model.latent_dim)
    check_eval(name, model)
    return model


def check_eval(name: str, module: object) -> None:
    """Raise if a module's output for one item depends on chance or on the rest of its batch.

    Raises:
        ValueError: it holds batch normalisation or dropout in training mode.

    Example:
        >>> check_eval("decoder", nn.BatchNorm1d(2).eval())
    """
    layers = module.modules() if isinstance(module, nn.Module) else ()
    loose = [type(m).__name__ for m in layers if m.training and isinstance(m, BATCH_LAYERS)]
    if loose:
        raise fail(name, "evaluation mode", f"{loose[0]} in training mode", "call .eval() on it first")
