"""A perceptron's energy with its gradient in closed form, which spares automatic differentiation's bookkeeping."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import fail

__all__ = ["FusedMLP"]

FEW = 16  # points of so few coordinates are multiplied one by one when compiled, fused with what is next to them


class FusedMLP:
    r"""Energy of a SiLU perceptron and its gradient in the input, as plain matrix products.

    .. math:: h_k = W_k a_{k-1} + b_k, \quad a_k = \mathrm{silu}(h_k), \quad
        \nabla_{a_{k-1}} E = W_k^\top (\mathrm{silu}'(h_k) \odot \nabla_{a_k} E)

    The weights are copied, transposed to the layout in which the products run fastest: build it anew after training.

    Arguments:
        net: linear layers with SiLU between them, the last of one output; a final flattening layer may follow.

    Raises:
        ValueError: the network has another form.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
        >>> energy, grad = FusedMLP(net).value_and_grad(torch.zeros(3, 2))
        >>> energy.shape, grad.shape, torch.allclose(energy, net(torch.zeros(3, 2)))
        (torch.Size([3]), torch.Size([3, 2]), True)
    """

    def __init__(self, net: nn.Sequential) -> None:
        layers = [m for m in net if not isinstance(m, nn.Flatten)]
        linear = [m for m in layers[::2] if isinstance(m, nn.Linear) and m.bias is not None]
        silu = [m for m in layers[1::2] if isinstance(m, nn.SiLU)]
        if len(linear) + len(silu) != len(layers) or not linear or linear[-1].out_features != 1:
            raise fail("net", "Linear, SiLU, …, Linear(·, 1)", str(net), "pass the module itself as the potential")
        self.weights = [m.weight.detach().clone() for m in linear]
        self.biases = [m.bias.detach().clone() for m in linear]
        self.transposed = [w.t().contiguous() for w in self.weights]

    def __call__(self, x: Tensor) -> Tensor:
        """Energy (N,) of points (N, D)."""
        return self._last(self._forward(x)[0])

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (N,) and its gradient (N, D) at points (N, D)."""
        active, kept = self._forward(x)
        grad = self.weights[-1].expand(len(x), -1)
        for layer, transposed in zip(reversed(kept), reversed(self.transposed[:-1]), strict=True):
            grad = _product(_silu_backward(grad, *layer), transposed)
        return self._last(active), grad

    def _forward(self, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        kept: list[tuple[Tensor, ...]] = []
        for weight, transposed, bias in zip(self.weights[:-1], self.transposed, self.biases[:-1], strict=False):
            x, of_layer = _silu(_affine(x, weight, transposed, bias))
            kept.append(of_layer)
        return x, kept

    def _last(self, active: Tensor) -> Tensor:
        return torch.mv(active, self.weights[-1][0]) + self.biases[-1]


def _affine(x: Tensor, weight: Tensor, transposed: Tensor, bias: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if x.shape[1] <= FEW:
        return bias + sum(x[:, k, None] * row for k, row in enumerate(transposed))
    # A sum with the bias would be turned into one call that first copies it to every row; a difference is fused with
    # what follows.
    return F.linear(x, weight) - (-bias)


def _product(grad: Tensor, transposed: Tensor) -> Tensor:
    if torch.compiler.is_compiling() and len(transposed) <= FEW:
        return torch.stack([(grad * row).sum(1) for row in transposed], 1)
    return F.linear(grad, transposed)


def _silu(h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The activation, and what its derivative is made of."""
    if not torch.compiler.is_compiling():
        return F.silu(h), (h,)  # uncompiled, the fused operations are faster
    # Activation and sigmoid are written once and read once; the input itself need not be kept.
    sigmoid = torch.sigmoid(h)
    active = h * sigmoid
    return active, (active, sigmoid)


def _silu_backward(grad: Tensor, *kept: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return torch.ops.aten.silu_backward(grad, *kept)
    active, sigmoid = kept
    return grad * (sigmoid + active * (1 - sigmoid))
