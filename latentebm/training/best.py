"""The best state of a module so far, kept row by row for stacked members."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BestState"]


class BestState:
    """Keeps a module's state of the lowest score.

    With scores (M,) every parameter stacks M members along its first dimension; each member's best rows are kept.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> keeper = BestState(net)
        >>> keeper.update(torch.tensor(1.0)); w = net.weight.clone()
        >>> _ = net.weight.data.fill_(9.0)
        >>> keeper.update(torch.tensor(2.0)); keeper.restore()
        >>> torch.equal(net.weight, w)
        True
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}
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
                self.state = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
            return
        for name, value in self.module.named_parameters():
            mask = better.view(-1, *[1] * (value.ndim - 1))
            self.state[name] = torch.where(mask, value.detach(), self.state[name])

    def restore(self) -> None:
        """Load the kept state into the module."""
        self.module.load_state_dict(self.state)
