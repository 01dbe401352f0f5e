"""Attributes of data with wanted shares: a user's classifier or function a(x), checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentebm.checks import check_number, fail

__all__ = ["Attribute", "joint_features"]


@dataclass(frozen=True)
class Attribute:
    """A property of the data and the shares its values shall have.

    Attributes:
        function: data (N, *data_shape) to the probabilities (N, K) of the target's keys in their order, or to one
            value an item, (N,), each among the keys.
        target: wanted share of each value, summing to one.
        name: what errors and tables call it.

    Raises:
        ValueError: no function, no mapping of values to shares, fewer than two values, or shares that are none.

    Example:
        >>> bright = Attribute(lambda x: x.flatten(1).mean(1) > 0.5, {False: 0.5, True: 0.5}, "bright")
        >>> bright(torch.tensor([[0.9], [0.1]]))
        tensor([[0., 1.],
                [1., 0.]])
    """

    function: Callable[[Tensor], Any]
    target: Mapping[Any, float]
    name: str = "attribute"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise fail("name", "a text", repr(self.name), 'pass for example name="bright"')
        if not callable(self.function):
            raise fail(f"{self.name} function", "a function of the data", repr(self.function), "pass a classifier")
        if not isinstance(self.target, Mapping):
            expected = "a mapping of each value to its share"
            raise fail(f"{self.name} target", expected, repr(self.target), "pass for example {0: 0.5, 1: 0.5}")
        if len(self.target) < 2:
            raise fail(f"{self.name} target", "at least two values", len(self.target), "name each value's share")
        shares = [check_number(f"{self.name} target", s, low=0, high=1) for s in self.target.values()]
        if abs(sum(shares) - 1) > 1e-6:
            expected, got = "shares that sum to 1", f"a sum of {sum(shares):.6g}"
            raise fail(f"{self.name} target", expected, got, "divide them by their sum")

    def __call__(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of the values, in the order of the target's keys.

        Raises:
            ValueError: another shape, values outside the keys, or rows that are no probabilities.
        """
        found = self.function(x)
        if np.ndim(found.detach().cpu() if isinstance(found, Tensor) else found) == 2:
            return self._probabilities(torch.as_tensor(found), len(x))
        return self._values(found, len(x)).to(x.device)

    def _probabilities(self, p: Tensor, n: int) -> Tensor:
        if tuple(p.shape) != (n, len(self.target)):
            keys = ", ".join(map(str, self.target))
            raise fail(
                self.name, f"shape {(n, len(self.target))}, a column for each of {keys}", tuple(p.shape), "mend it"
            )
        rows = p.detach().double()
        if not bool((rows >= -1e-6).all()) or not bool(((rows.sum(1) - 1).abs() < 1e-3).all()):
            raise fail(self.name, "rows of probabilities", "others", "apply a softmax to the classifier's logits")
        return p.float()

    def _values(self, found: Any, n: int) -> Tensor:
        values = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found)
        if values.shape != (n,):
            raise fail(self.name, f"shape ({n},) or ({n}, {len(self.target)})", values.shape, "return a value an item")
        hit = np.stack([values == key for key in self.target], axis=1)
        outside = values[~hit.any(1)]
        if len(outside):
            expected = f"values among the target's keys {', '.join(map(str, self.target))}"
            raise fail(self.name, expected, str(outside[0]), "add it to the target, with share 0 if unwanted")
        return torch.from_numpy(hit).float()


def joint_features(attributes: tuple[Attribute, ...]) -> Callable[[Tensor], Tensor]:
    """All attributes' probabilities side by side, as features of data.

    Where one of them passes on no gradient, none does: the gradient of the others alone is not that of the energy.

    Example:
        >>> sign = Attribute(lambda x: x[:, 0] > 0, {False: 0.5, True: 0.5})
        >>> joint_features((sign, sign))(torch.ones(1, 1))
        tensor([[0., 1., 0., 1.]])
    """

    def features(x: Tensor) -> Tensor:
        parts = [attribute(x) for attribute in attributes]
        joint = torch.cat(parts, dim=1)
        return joint if all(part.requires_grad for part in parts) else joint.detach()

    return features
