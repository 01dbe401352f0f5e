"""An energy of features that is a number in each of some cells, and smooth between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CellEnergy", "memberships"]


class CellEnergy(nn.Module):
    r"""Sum over R clusterings of the log-weights of C cells, each weighted by how near its centre is.

    .. math:: E(\phi) = \mathrm{clamp}\Big(-\sum_r \sum_c h_{rc}\, u_{rc}(\phi),\ e_-,\ e_+\Big), \qquad
        u_{rc} \propto \exp\!\big(-|A^\top(\phi - m) - \mu_{rc}|^2 / \tau_r\big), \quad \sum_c u_{rc} = 1

    It is differentiable, and bounded: cells that no draw of the fit lay in may carry any log-weight, and draws that
    come to lie there later are to count no more than the heaviest draw of the fit.

    Arguments:
        mean: m, of the features, (F,).
        axes: A, from features to the space in which cells lie, (F, K).
        centres: μ, (R, C, K).
        widths: τ, squared distances over which one cell passes into the next, (R,).
        heights: h, log-weights, (R, C), nats.
        span: least and greatest energy, e₋ and e₊, (2,), nats.
        gain: held-out gain of the fit, nats per reference item.
        gain_se: its standard error.

    Example:
        >>> one, centres = torch.ones(1), torch.tensor([[[-1.0], [1.0]]])
        >>> span = torch.tensor([-9.0, 0.0])
        >>> energy = CellEnergy(0 * one, one[:, None], centres, one, torch.tensor([[0.0, 2.0]]), span)
        >>> energy(torch.tensor([[-9.0], [0.0], [9.0]])).round(decimals=3)
        tensor([-0., -1., -2.])
    """

    mean: Tensor
    axes: Tensor
    centres: Tensor
    widths: Tensor
    heights: Tensor
    span: Tensor

    def __init__(
        self,
        mean: Tensor,
        axes: Tensor,
        centres: Tensor,
        widths: Tensor,
        heights: Tensor,
        span: Tensor,
        gain: float = 0.0,
        gain_se: float = 0.0,
    ) -> None:
        super().__init__()
        buffers = {"mean": mean, "axes": axes, "centres": centres, "widths": widths, "heights": heights}
        buffers["span"] = span
        for name, value in buffers.items():
            self.register_buffer(name, value.float())
        self.gain, self.gain_se = gain, gain_se

    @property
    def limit(self) -> float:
        """Bound of the energy, nats; 0 where there is no tilt."""
        return float(self.span.abs().max())

    def arguments(self) -> dict[str, Any]:
        """All of it: tensors and figures of the fit."""
        names = ("mean", "axes", "centres", "widths", "heights", "span", "gain", "gain_se")
        return {name: getattr(self, name) for name in names}

    def forward(self, features: Tensor) -> Tensor:
        """Energies (N,) of features (N, F), nats."""
        points = (features.float() - self.mean) @ self.axes
        energy = -(memberships(points, self.centres, self.widths) * self.heights).sum((1, 2))
        return energy.clamp(*self.span)


def memberships(points: Tensor, centres: Tensor, widths: Tensor) -> Tensor:
    """How much points (N, K) belong to cells about centres (R, C, K), (N, R, C); each clustering's sum to one."""
    # |x|² is the same for all cells of a point, and leaves with the softmax.
    nearness = 2 * torch.einsum("nk,rck->nrc", points, centres) - centres.square().sum(2)
    return (nearness / widths[:, None]).softmax(2)
