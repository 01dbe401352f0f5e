"""Network builders: multilayer perceptrons and small convnets between images and codes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from latentebm.checks import check_choice
from latentebm.rng import seeded

__all__ = ["NETWORKS", "decoder", "encoder", "mlp"]

NETWORKS = ("mlp", "conv")


def mlp(sizes: Sequence[int], *, batch_norm: bool = False, generator: torch.Generator | None = None) -> nn.Sequential:
    r"""Multilayer perceptron with SiLU between linear layers.

    .. math:: h_{l+1} = \mathrm{SiLU}(W_l h_l + b_l), \text{ the last layer linear}

    Arguments:
        sizes: width of every layer, input and output included.
        batch_norm: normalise the output of every linear layer over the batch, the last one's too.
        generator: source of the initial weights; None for torch's global stream.

    Raises:
        ValueError: a width below one (from torch).

    References:
        Sigmoid-weighted linear units (Elfwing et al., 2017), https://arxiv.org/abs/1702.03118

    Example:
        >>> [tuple(p.shape) for p in mlp((2, 8, 1)).parameters()]
        [(8, 2), (8,), (1, 8), (1,)]
    """
    layers: list[nn.Module] = []
    with seeded(generator):
        for i, o in itertools.pairwise(sizes):
            layers += [nn.Linear(i, o), *([nn.BatchNorm1d(o)] if batch_norm else []), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def encoder(network: str, data_shape: tuple[int, ...], outputs: int, width: int) -> nn.Sequential:
    """Network from images (N, *data_shape) to (N, outputs).

    Arguments:
        network: ``mlp`` (two hidden layers of `width`) or ``conv`` (two strided convolutions, one hidden layer).
        data_shape: (C, H, W).
        outputs: numbers per image.
        width: hidden units.

    Raises:
        ValueError: unknown network.

    Example:
        >>> encoder("conv", (1, 28, 28), 4, 32)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 4])
    """
    check_choice("network", network, NETWORKS)
    if network == "mlp":
        return nn.Sequential(nn.Flatten(), mlp((math.prod(data_shape), width, width, outputs)))
    channels, height, breadth = data_shape
    c1, c2 = _channels(width)
    flat = c2 * math.ceil(height / 4) * math.ceil(breadth / 4)
    return nn.Sequential(
        nn.Conv2d(channels, c1, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(c1, c2, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        mlp((flat, width, outputs)),
    )


def decoder(network: str, latent_dim: int, data_shape: tuple[int, ...], width: int) -> nn.Sequential:
    """Network from codes (N, latent_dim) to the likelihood's parameter, (N, *data_shape).

    Arguments:
        network: ``mlp`` (three hidden layers: decoding a short code takes more of them than encoding) or ``conv``.
        latent_dim: code length.
        data_shape: (C, H, W).
        width: hidden units.

    Raises:
        ValueError: unknown network.

    Example:
        >>> decoder("conv", 2, (1, 27, 28), 32)(torch.zeros(3, 2)).shape
        torch.Size([3, 1, 27, 28])
    """
    check_choice("network", network, NETWORKS)
    if network == "mlp":
        return nn.Sequential(mlp((latent_dim, width, width, width, math.prod(data_shape))), nn.Unflatten(1, data_shape))
    channels, height, breadth = data_shape
    c1, c2 = _channels(width)
    small = (math.ceil(height / 4), math.ceil(breadth / 4))
    middle = (math.ceil(height / 2), math.ceil(breadth / 2))
    return nn.Sequential(
        mlp((latent_dim, width, c2 * small[0] * small[1])),
        nn.SiLU(),
        nn.Unflatten(1, (c2, *small)),
        nn.Upsample(size=middle),
        nn.Conv2d(c2, c1, 3, padding=1),
        nn.SiLU(),
        nn.Upsample(size=(height, breadth)),
        nn.Conv2d(c1, channels, 3, padding=1),
    )


def _channels(width: int) -> tuple[int, int]:
    return max(4, width // 16), max(8, width // 8)
