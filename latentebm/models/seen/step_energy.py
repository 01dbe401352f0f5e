"""An energy of features that changes in steps along a few directions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["StepEnergy"]

RAMP = 0.02  # width of a step, in standard deviations of its score


class StepEnergy(nn.Module):
    r"""Sum of step functions of R scores, each a linear combination of the features.

    .. math:: E(\phi) = -\sum_r \sum_k \Delta_{rk}\,
        \min\!\Big(1, \max\!\big(0, (v_r^\top(\phi - m) - e_{rk}) / 0.02\big)\Big)

    Arguments:
        mean: of the features, (F,).
        directions: of the scores, (F, R), whose scores have unit standard deviation.
        edges: where the steps are, (R, K).
        jumps: what each adds to the log-weight, (R, K), nats.
        gain: held-out gain of the fit, nats per reference item.
        gain_se: its standard error.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> StepEnergy(torch.zeros(1), one, 0 * one, 2 * one)(torch.tensor([[-1.0], [0.01], [1.0]]))
        tensor([-0., -1., -2.])
    """

    mean: Tensor
    directions: Tensor
    edges: Tensor
    jumps: Tensor

    def __init__(
        self,
        mean: Tensor,
        directions: Tensor,
        edges: Tensor,
        jumps: Tensor,
        gain: float = 0.0,
        gain_se: float = 0.0,
    ) -> None:
        super().__init__()
        buffers = {"mean": mean, "directions": directions, "edges": edges, "jumps": jumps}
        for name, value in buffers.items():
            self.register_buffer(name, value.float())
        self.gain, self.gain_se = gain, gain_se

    @property
    def limit(self) -> float:
        """Bound of the energy, nats."""
        return float(self.jumps.abs().sum())

    def arguments(self) -> dict[str, Any]:
        """All of it: tensors and figures of the fit."""
        names = ("mean", "directions", "edges", "jumps", "gain", "gain_se")
        return {name: getattr(self, name) for name in names}

    def forward(self, features: Tensor) -> Tensor:
        """Energies (N,) of features (N, F), nats."""
        if not self.directions.shape[1]:
            return features.new_zeros(len(features))
        scores = (features.float() - self.mean) @ self.directions
        steps = ((scores[:, :, None] - self.edges) / RAMP).clamp(0, 1)
        return -(steps * self.jumps).sum((1, 2))
