"""Attributes and features of data, and energies of codes through what they decode to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentebm.checks import check_shares, fail
from latentebm.chunks import decode_chunk, in_chunks
from latentebm.models.latent_model import LatentModel, attempt

__all__ = [
    "Attribute",
    "FeatureEnergy",
    "JointFeatures",
    "LinearEnergy",
    "check_features",
    "checked_features",
    "decoded_features",
]


@dataclass(frozen=True)
class Attribute:
    """A property of the data and the shares that its values shall have.

    The function maps data (N, *data_shape) to the probabilities (N, K) of the target's two or more keys in their order,
    or to one value per item, (N,), each among the keys; their shares sum to one. Errors and tables call it `name`.

    Example:
        >>> bright = Attribute(lambda x: x.flatten(1).mean(1) > 0.5, {False: 0.5, True: 0.5}, "bright")
        >>> bright(torch.tensor([[0.9], [0.1]]))
        tensor([[0., 1.],
                [1., 0.]])
    """

    function: Callable[[Tensor], Any]
    target: Mapping[Any, float]  # wanted share of each value, summing to one
    name: str = "attribute"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise fail("name", "a string", repr(self.name), 'pass for example name="bright"')
        if not callable(self.function):
            fix = "pass a function such as a classifier's probabilities"
            raise fail(f"{self.name} function", "a function of the data", repr(self.function), fix)
        if not isinstance(self.target, Mapping):
            expected, fix = "a mapping of each value to its share", "pass for example {0: 0.5, 1: 0.5}"
            raise fail(f"{self.name} target", expected, repr(self.target), fix)
        if len(self.target) < 2:
            raise fail(f"{self.name} target", "at least two values", len(self.target), "name each value's share")
        check_shares(f"{self.name} target", list(self.target.values()), len(self.target))

    def arguments(self) -> dict[str, Any]:
        """Function, target and name."""
        return {"function": self.function, "target": self.target, "name": self.name}

    def __call__(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of the values, in the order of the target's keys."""
        found = self.function(x)
        values = found.detach().cpu() if isinstance(found, Tensor) else np.asarray(found)
        if values.ndim == 2:
            return self._probabilities(torch.as_tensor(found), len(x))
        return self._one_hot(np.asarray(values), len(x)).to(x.device)

    def _probabilities(self, p: Tensor, n: int) -> Tensor:
        if tuple(p.shape) != (n, len(self.target)):
            expected = f"shape {(n, len(self.target))}, a column for each of {', '.join(map(str, self.target))}"
            raise fail(self.name, expected, tuple(p.shape), "return one column per key of the target")
        rows, fix = p.detach().double(), "apply a softmax to the classifier's logits"
        if not bool((rows >= -1e-6).all()) or not bool(((rows.sum(1) - 1).abs() < 1e-3).all()):
            raise fail(self.name, "rows of probabilities", "negative values or rows that don't sum to 1", fix)
        return p.float()

    def _one_hot(self, values: np.ndarray, n: int) -> Tensor:
        if values.shape != (n,):
            expected = f"shape ({n},) or ({n}, {len(self.target)})"
            raise fail(self.name, expected, values.shape, "return one value per item")
        hit = np.stack([values == key for key in self.target], axis=1)
        if len(outside := values[~hit.any(1)]):
            expected = f"values among the target's keys {', '.join(map(str, self.target))}"
            raise fail(self.name, expected, str(outside[0]), "add it to the target, with share 0 if unwanted")
        return torch.from_numpy(hit).float()


@dataclass(frozen=True)
class JointFeatures:
    """All attributes' probabilities side by side, as features of data.

    Where one of them has no gradient, none is passed on: that of the others alone is not the energy's.

    Example:
        >>> sign = Attribute(lambda x: x[:, 0] > 0, {False: 0.5, True: 0.5})
        >>> JointFeatures((sign, sign))(torch.ones(1, 1))
        tensor([[0., 1., 0., 1.]])
    """

    attributes: tuple[Attribute, ...]

    def arguments(self) -> dict[str, Any]:
        """The attributes."""
        return {"attributes": self.attributes}

    def __call__(self, x: Tensor) -> Tensor:
        """Probabilities (N, F) of data (N, ...)."""
        parts = [attribute(x) for attribute in self.attributes]
        joint = torch.cat(parts, dim=1)
        return joint if all(part.requires_grad for part in parts) else joint.detach()


class LinearEnergy(nn.Module):
    r"""Exponential family: an energy linear in the features, with natural parameters θ (F,) in nats per unit of each.

    .. math:: E(\phi) = -\theta^\top \phi

    Where the features are bounded the energy is; `limit` says by how many nats.

    Example:
        >>> LinearEnergy(torch.tensor([1.0, -1.0]))(torch.eye(2))
        tensor([-1.,  1.])
    """

    def __init__(self, theta: Tensor, limit: float | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.theta = nn.Parameter(theta.detach().clone().float(), requires_grad=False)

    def arguments(self) -> dict[str, Any]:
        """θ and the limit."""
        return {"theta": self.theta, "limit": self.limit}

    def forward(self, features: Tensor) -> Tensor:
        """Energies (N,) of features (N, F)."""
        return -(features @ self.theta.to(features))


class FeatureEnergy(nn.Module):
    r"""Energy of a code as an energy of features of the data it decodes to.

    .. math:: E(z) = e\big(\phi(\mathrm{decode}(z))\big)

    Samplers that use no gradient (SNIS, rejection, i-SIR) take any model and features. Langevin and NUTS need both
    to be differentiable; where the features are piecewise constant (a hard label), Metropolis-adjusted kernels stay
    exact, and the others refuse them.

    The features are (N, F) of data (N, *data_shape), the energy e maps them to (N,); `chunk` codes are decoded at once.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> model, theta = WrappedModel(nn.Identity(), 2), torch.tensor([1.0, 0.0])
        >>> energy = FeatureEnergy(model, torch.sign, LinearEnergy(theta))
        >>> energy(torch.tensor([[3.0, 0.5], [-0.1, 2.0]]))
        tensor([-1.,  1.])
    """

    def __init__(
        self, model: LatentModel, features: Callable[[Tensor], Tensor], energy: nn.Module, *, chunk: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.features, self.energy, self.chunk = model, features, energy, chunk

    def arguments(self) -> dict[str, Any]:
        """Model, features, energy and chunk."""
        return {"model": self.model, "features": self.features, "energy": self.energy, "chunk": self.chunk}

    def forward(self, z: Tensor) -> Tensor:
        """Energies (N,) of codes (N, d), nats; a gradient that `decode` does not pass on is refused."""
        size = self.chunk or decode_chunk(self.model, z.device)
        return in_chunks(lambda part: self.energy(decoded_features(self.model, self.features, part)), z, size)


def decoded_features(model: LatentModel, features: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Features (N, F) of what codes decode to; a gradient that `decode` does not pass on is refused."""
    x = model.decode(z)
    if torch.is_grad_enabled() and z.requires_grad and not x.requires_grad:
        # Otherwise the chain would silently follow the prior alone.
        expected = "a differentiable decode, since this sampler needs the energy's gradient"
        raise fail("decode", expected, "one that passes on no gradient", "draw by SNIS instead")
    return checked_features(features, x)


def check_features(features: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return features if they tell some data (N, ...) apart, each item by itself.

    Example:
        >>> check_features(lambda x: x - x.mean(0), torch.eye(3))
        Traceback (most recent call last):
        ValueError: features: expected those of an item whatever its batch, got others in another batch; ...
    """
    tried = partial(attempt, "features", features, fix="pass a function of a batch of the model's data")
    phi, alone = checked_features(tried, x), checked_features(tried, x[:1])
    if alone.shape[1] != phi.shape[1]:
        found = sorted({alone.shape[1], phi.shape[1]})
        raise fail("features", "the same number of features for every item", found, "return a fixed width")
    if not torch.allclose(alone, phi[:1], rtol=0.02, atol=0.02 * float(phi.abs().mean()) + 1e-6):
        fix = "compute each item's by itself, in evaluation mode"
        raise fail("features", "those of an item whatever its batch", "others in another batch", fix)
    if not bool((phi.std(0) > 1e-6 * phi.abs().mean().clamp_min(1e-6)).any()):
        got, fix = f"the same for all of {len(x)} draws", "pass features that see what should be balanced"
        raise fail("features", "values that differ between draws", got, fix)
    return features


def checked_features(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Features (N, F) of data (N, ...), as finite floats.

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
