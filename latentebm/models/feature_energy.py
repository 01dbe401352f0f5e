"""Energies of codes through what they decode to: of an attribute, or of any features."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, in_chunks
from latentebm.models.latent_model import LatentModel

__all__ = ["FeatureEnergy", "LinearEnergy", "decoded_features"]


class LinearEnergy(nn.Module):
    r"""Exponential family: an energy linear in the features, with natural parameters θ (F,) in nats per unit of each.

    .. math:: E(\phi) = -\theta^\top \phi

    Example:
        >>> LinearEnergy(torch.tensor([1.0, -1.0]))(torch.eye(2))
        tensor([-1.,  1.])
    """

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.detach().clone().float(), requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Energies (N,) of features (N, F)."""
        return -(features @ self.theta.to(features))


class FeatureEnergy(nn.Module):
    r"""Energy of a code as an energy of features of the data it decodes to.

    .. math:: E(z) = e\big(\phi(\mathrm{decode}(z))\big)

    Samplers that use no gradient (SNIS, rejection, i-SIR) take any model and features. Langevin and NUTS need both
    to be differentiable; where the features are piecewise constant (a hard label), Metropolis-adjusted kernels stay
    exact, and the others refuse them.

    Arguments:
        model: anything with `latent_dim` and `decode`.
        features: data (N, *data_shape) to features (N, F).
        energy: module from features (N, F) to (N,).
        chunk: codes decoded at once; None chooses by the device.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> model, theta = WrappedModel(nn.Identity(), 2), torch.tensor([1.0, 0.0])
        >>> energy = FeatureEnergy(model, torch.sign, LinearEnergy(theta))
        >>> energy(torch.tensor([[3.0, 0.5], [-0.1, 2.0]]))
        tensor([-1.,  1.])
    """

    def __init__(
        self,
        model: LatentModel,
        features: Callable[[Tensor], Tensor],
        energy: nn.Module,
        *,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.features, self.energy, self.chunk = model, features, energy, chunk

    def forward(self, z: Tensor) -> Tensor:
        """Energies (N,) of codes (N, d), nats.

        Raises:
            ValueError: features of another shape, or a gradient is asked for that `decode` does not pass on.
        """

        def energies(part: Tensor) -> Tensor:
            return cast(Tensor, self.energy(decoded_features(self.model, self.features, part)))

        return in_chunks(energies, z, self.chunk or chunk_size(CHAIN_NUMBERS, z.device))


def decoded_features(model: LatentModel, features: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Features (N, F) of what codes decode to.

    Raises:
        ValueError: features of another shape, or a gradient is asked for that `decode` does not pass on.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> decoded_features(WrappedModel(nn.Identity(), 2), torch.abs, -torch.ones(1, 2))
        tensor([[1., 1.]])
    """
    x = model.decode(z)
    if torch.is_grad_enabled() and z.requires_grad and not x.requires_grad:
        # Otherwise the chain would silently follow the prior alone.
        expected = "a differentiable decode, since this sampler needs the energy's gradient"
        raise fail("decode", expected, "one that passes on no gradient", "draw by SNIS instead")
    return checked_features(features, x)


def checked_features(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Features (N, F) of data (N, ...), as floats.

    Raises:
        ValueError: another shape, or NaN or infinite features.

    Example:
        >>> checked_features(lambda x: x.mean(), torch.zeros(2, 3))
        Traceback (most recent call last):
        ValueError: features: expected shape (2, F), got (); return one row of numbers per item
    """
    phi = features(x)
    if not isinstance(phi, Tensor) or phi.ndim != 2 or len(phi) != len(x) or not phi.shape[1]:
        got = tuple(phi.shape) if isinstance(phi, Tensor) else type(phi).__name__
        raise fail("features", f"shape ({len(x)}, F)", got, "return one row of numbers per item")
    if not bool(phi.isfinite().all()):
        raise fail("features", "finite numbers", "NaN or infinite ones", "return finite features for all data")
    return phi.float()
