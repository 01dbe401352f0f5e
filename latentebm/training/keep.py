"""States of a module that a fit keeps: the best one, and the average along the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentebm.checks import check_number

__all__ = ["Average", "BestState", "snapshot"]


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


class BestState:
    """Keeps a module's state of the lowest score.

    With scores (M,) every parameter stacks M members along its first dimension; each member's best rows are kept.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> keeper = BestState(net)
        >>> for score in (2.0, 1.0, 3.0):
        ...     _ = net.weight.data.fill_(score); keeper.update(torch.tensor(score))
        >>> keeper.restore(); net.weight.item()
        1.0
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.state = snapshot(module)
        self.best = torch.tensor(torch.inf)
        self.stale = 0

    def update(self, score: Tensor) -> None:
        """Take the present state where `score`, () or (M,), is lower than the best; NaN never is."""
        if self.best.shape != score.shape:
            self.best = torch.full_like(score, torch.inf)
        better = score < self.best
        self.stale = 0 if bool(better.any()) else self.stale + 1
        self.best = torch.where(better, score, self.best)
        if not better.ndim:
            if better:
                self.state = snapshot(self.module)
            return
        for name, value in self.module.named_parameters():
            mask = better.view(-1, *[1] * (value.ndim - 1))
            self.state[name] = torch.where(mask, value.detach(), self.state[name])

    def restore(self) -> None:
        """Load the kept state into the module."""
        self.module.load_state_dict(self.state)


class Average:
    r"""Exponential moving average of the parameters, which smooths the noise of single steps.

    .. math:: \bar\theta_t = d_t\, \bar\theta_{t-1} + (1 - d_t)\, \theta_t, \quad
        d_t = \min\!\Big(d, \frac{1 + t}{10 + t}\Big)

    About the last 1/(1 − d) steps count; the smaller decay at first forgets the start even in a short training.

    References:
        Acceleration of stochastic approximation by averaging (Polyak and Juditsky, 1992),
        https://doi.org/10.1137/0330046

    Example:
        >>> net = nn.Linear(1, 1)
        >>> _ = nn.init.zeros_(net.weight)
        >>> average = Average(net, 0.5)
        >>> for value in (0.0, 1.0, 2.0):
        ...     _ = net.weight.data.fill_(value); average.update()
        >>> average.load(); round(net.weight.item(), 3)  # decays 2/11, 3/12 and 4/13
        1.615
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = check_number("average", decay, low=0, high=0.99999)
        self.module = module
        self.restart()

    def restart(self) -> None:
        """Begin again from the present parameters."""
        self.steps = 0
        self.mean = [p.detach().clone() for p in self.module.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.mean, list(self.module.parameters()), 1 - decay)

    @torch.no_grad()
    def load(self) -> None:
        """Put the average in the parameters' place."""
        for parameter, mean in zip(self.module.parameters(), self.mean, strict=True):
            parameter.copy_(mean)
