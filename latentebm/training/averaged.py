"""The loss of a batch over several processes, each of which sees a part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from latentebm import processes

__all__ = ["averaged"]


def averaged(module: nn.Module, loss: Callable[[Any], Tensor], batch_size: int) -> Callable[[Any], Tensor]:
    """The mean loss of batches of which each process sees `share` of the rows; alone, the loss as it is.

    Its value is that of the whole batch, in all processes; its gradient becomes so in the backward pass.

    Example:
        >>> averaged(nn.Linear(1, 1), len, 256) is len
        True
    """
    if processes.world() == 1:
        return loss
    # Parts differ in size by one where the processes do not divide the batch; none is ever empty (see `own_rows`).
    weight = len(processes.share(batch_size)) * processes.world() / batch_size
    shared = DistributedDataParallel(_Forward(module, loss))

    def mean(batch: Any) -> Tensor:
        own = weight * shared(batch)
        return own + (processes.mean(own.detach()) - own.detach())

    return mean


class _Forward(nn.Module):
    """A loss as the forward pass of the module it trains, where torch expects it."""

    def __init__(self, module: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, batch: Any) -> Tensor:
        """The loss of a batch."""
        return self.loss(batch)
