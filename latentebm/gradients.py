"""Values and gradients of potentials by automatic differentiation: the one place where chains' gradients are formed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentebm.checks import fail

__all__ = ["checked_values", "differentiate"]


def differentiate(potential: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A potential's values (N,) and its gradients (N, *event) at points (N, *event), without a graph.

    The sum over points, not their mean, is differentiated: each point's gradient is its own. A potential that is not
    floating, of shape (N,) and dependent on the points is refused by a ValueError.

    Example:
        >>> differentiate(lambda x: x.square().sum(1) / 2, torch.ones(2, 1))
        (tensor([0.5000, 0.5000]), tensor([[1.],
                [1.]]))
    """
    if torch.compiler.is_compiling():
        grad, value = torch.func.grad(lambda x: _summed(potential, x), has_aux=True)(x)
        return value, grad
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        total, value = _summed(potential, leaf)
        if not total.requires_grad:
            raise fail("potential", "one that depends on x", "no gradient", "compute it from its argument, undetached")
        (grad,) = torch.autograd.grad(total, leaf)
    return value.detach(), grad


def checked_values(potential: Callable[[Tensor], Tensor], x: Tensor, name: str = "potential") -> Tensor:
    """Values (N,) of a potential or energy at points (N, *event), refused unless one floating number per point."""
    value = potential(x)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise fail(name, f"shape ({len(x)},)", got, "return one energy per point, for example by .squeeze(-1)")
    if not value.is_floating_point():
        raise fail(name, "floating numbers", str(value.dtype), "convert them with .float()")
    return value


def _summed(potential: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    value = checked_values(potential, x)
    return value.sum(), value
