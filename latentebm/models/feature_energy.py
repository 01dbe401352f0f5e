"""Energies of codes through what they decode to: of an attribute, or of any features."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.models.latent_model import LatentModel

__all__ = ["FeatureEnergy", "LinearEnergy", "decoded_features"]


class LinearEnergy(nn.Module):
    r"""Exponential family: the energy falls linearly along the features.

    .. math:: E(\phi) = -\theta^\top \phi

    Arguments:
        theta: natural parameters, (F,), nats per unit of each feature.

    References:
        I-divergence geometry of probability distributions and minimization problems (Csiszár, 1975).

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
    to be differentiable; where the features are steps (a hard label), Metropolis-adjusted kernels stay exact, and the
    others refuse them.

    Arguments:
        model: anything with `latent_dim` and `decode`.
        features: data (N, *data_shape) to features (N, F).
        energy: module from features (N, F) to (N,).
        chunk: codes decoded at once.

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
        chunk: int = 4096,
    ) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.energy = energy
        self.chunk = chunk

    def forward(self, z: Tensor) -> Tensor:
        """Energies (N,) of codes (N, d), nats.

        Raises:
            ValueError: features of another shape, or a gradient is asked for that `decode` does not pass on.
        """
        parts = [decoded_features(self.model, self.features, part) for part in z.split(self.chunk)]
        return torch.cat([cast(Tensor, self.energy(part)) for part in parts])


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
        raise fail("decode", "a differentiable one for this sampler", "one without gradient", "draw by SNIS instead")
    return checked_features(features, x)


def checked_features(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Features (N, F) of data (N, ...), as floats.

    Raises:
        ValueError: another shape, or NaN or infinite features.

    Example:
        >>> checked_features(lambda x: x.mean(), torch.zeros(2, 3))
        Traceback (most recent call last):
        ValueError: features: expected shape (2, F), got (); return one row of numbers an item
    """
    phi = features(x)
    if not isinstance(phi, Tensor) or phi.ndim != 2 or len(phi) != len(x) or not phi.shape[1]:
        got = tuple(phi.shape) if isinstance(phi, Tensor) else type(phi).__name__
        raise fail("features", f"shape ({len(x)}, F)", got, "return one row of numbers an item")
    if not bool(phi.isfinite().all()):
        raise fail("features", "finite numbers", "NaN or infinite ones", "mend the callable")
    return phi.float()
