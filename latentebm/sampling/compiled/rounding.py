"""Matrix products of rounded operands: what a precision means, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_choice, fail

__all__ = ["PRECISIONS", "Precision", "RoundedPerceptrons", "check_precision", "rounded", "rounded_form"]

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS = get_args(Precision)
AGREEMENT = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}  # of energies that are one but for their rounding


def check_precision(precision: str) -> str:
    """Return the name of a precision, or raise a ValueError."""
    return check_choice("precision", precision, PRECISIONS)


def rounded(x: Tensor, precision: str) -> Tensor:
    """A float32 tensor rounded to the nearest numbers of a precision, still float32.

    TF32 keeps 10 bits after the leading one, bfloat16 keeps 7.

    Example:
        >>> x = torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 2**-8])
        >>> (rounded(x, "tf32") - 1).tolist(), (rounded(x, "bf16") - 1).tolist()
        ([0.0009765625, 0.0009765625, 0.00390625], [0.0, 0.0, 0.0])
    """
    if precision == "bf16":
        return x.bfloat16().to(x)
    if precision == "fp32":
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


class RoundedPerceptrons:
    r"""Mean energy of M SiLU perceptrons and its gradient, both operands of every product rounded, sums in float32.

    .. math:: h_k = \mathrm{r}(a_{k-1})\, \mathrm{r}(W_k) + b_k, \quad
        \nabla_{a_{k-1}} E = \mathrm{r}\big(\mathrm{silu}'(h_k) \odot \nabla_{a_k} E\big)\, \mathrm{r}(W_k)^\top

    A rounding r is off by at most :math:`2^{-11}` (TF32) or :math:`2^{-8}` (bfloat16) of each number. The products of
    the last layer, of one output, stay float32. Arguments as for `CompiledPerceptrons`.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], limit: float | None, precision: str
    ) -> None:
        self.precision, self.limit = check_precision(precision), limit
        self.weights = [rounded(w.detach().float(), precision) for w in weights[:-1]]
        self.last = weights[-1].detach().float()
        members = len(self.last)
        self.biases = [b.detach().float().reshape(members, 1, -1) for b in biases]

    def __call__(self, x: Tensor) -> Tensor:
        """Energies (N,) of points (N, D)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (N,) and their gradients (N, D) at points (N, D)."""
        members = len(self.last)
        active, before = x.detach().float().expand(members, *x.shape), []
        for weight, bias in zip(self.weights, self.biases[:-1], strict=True):
            before.append(rounded(active, self.precision) @ weight + bias)
            active = F.silu(before[-1])
        free = active @ self.last + self.biases[-1]
        value = free if self.limit is None else self.limit * torch.tanh(free / self.limit)
        slope = torch.ones_like(free) if self.limit is None else 1 - (value / self.limit).square()
        grad = slope @ self.last.mT
        for h, weight in zip(reversed(before), reversed(self.weights), strict=True):
            down = torch.ops.aten.silu_backward(grad, h)
            grad = rounded(down, self.precision) @ weight.mT
        return value.squeeze(-1).mean(0).to(x), grad.mean(0).to(x)


def rounded_form(target: Any, precision: str) -> Any:
    """A target, or a perceptron energy, with its perceptrons' products rounded; any other energy is refused."""
    form = _form(target, precision)
    if form is None:
        got, fix = f"{precision!r} for {type(target).__name__}", "leave precision at fp32"
        raise fail("precision", "fp32 where the energy is no perceptron", got, fix)
    return form


def _form(target: Any, precision: str) -> Any:
    if (layers := getattr(target, "perceptrons", None)) is not None:
        weights, biases, limit = layers
        return RoundedPerceptrons(weights, biases, limit, precision)
    again = getattr(target, "with_energy", lambda form: None)
    return again(lambda part: getattr(_form(part, precision), "value_and_grad", None))
