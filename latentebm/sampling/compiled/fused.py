"""A perceptron's energy with its gradient in closed form, without a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import fail

__all__ = ["FusedMLP"]


class FusedMLP:
    r"""Energy of a SiLU perceptron and its gradient in the input, as plain matrix products.

    .. math:: h_k = W_k a_{k-1} + b_k, \quad a_k = \mathrm{silu}(h_k), \quad
        \nabla_{a_{k-1}} E = W_k^\top (\mathrm{silu}'(h_k) \odot \nabla_{a_k} E)

    The weights are copied, transposed to the layout in which the products run fastest: build it again after training.

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
        active, before = self._forward(x)
        grad = self.weights[-1].expand(len(x), -1)
        for h, transposed in zip(reversed(before), reversed(self.transposed[:-1]), strict=True):
            grad = F.linear(torch.ops.aten.silu_backward(grad, h), transposed)
        return self._last(active), grad

    @property
    def perceptrons(self) -> tuple[list[Tensor], list[Tensor], float | None]:
        """Weights (1, in, out) and biases of each layer, and no limit: all that a compiled form needs."""
        return [w[None] for w in self.transposed], self.biases, None

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last layer's input, and every layer's output before its activation."""
        before: list[Tensor] = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            before.append(F.linear(x, weight, bias))
            x = F.silu(before[-1])
        return x, before

    def _last(self, active: Tensor) -> Tensor:
        return torch.mv(active, self.weights[-1][0]) + self.biases[-1]
