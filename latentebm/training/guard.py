"""Watch over an energy's training: when it diverges, go back to a good state at half the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_number
from latentebm.training.keep import snapshot

__all__ = ["Guard"]


class Guard:
    r"""Keeps recent good states of a module and says when training has left them.

    A step is bad if its loss is not finite, or if the energy gap between model draws and data,

    .. math:: g = \overline{E(\tilde x)} - \overline{E(x)},

    leaves ±`max_gap` nats: the chains no longer follow the energy. The state gone back to is at least `every` steps
    old, from before the trouble began; after `retries` such steps a fit gives up.

    The tensors `extra`, such as a replay buffer's chains, are kept and restored in place beside the module.

    References:
        Improved contrastive divergence training of energy based models (Du et al., 2021),
        https://arxiv.org/abs/2012.01316

    Example:
        >>> net = nn.Linear(1, 1)
        >>> guard = Guard(net, max_gap=5.0)
        >>> guard.observe(torch.tensor(7.0))
        >>> guard.trouble(torch.tensor(0.0))
        'an energy gap of 7 nats, beyond ±5'
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        max_gap: float = 50.0,
        every: int = 50,
        retries: int = 8,
        extra: Sequence[Tensor] = (),
    ) -> None:
        self.max_gap = check_number("max_gap", max_gap, low=0, open_low=True)
        self.every = check_int("every", every)
        self.retries = check_int("retries", retries, low=0)
        self.module, self.extra = module, extra
        self.gap = 0.0
        self.rollbacks = 0
        self._good = self._next = self._snapshot(0)

    def observe(self, gap: Tensor) -> None:
        """Note the energy gap of the coming step, a scalar in nats."""
        self.gap = float(gap.detach())

    def trouble(self, loss: Tensor) -> str:
        """What is wrong with a step of this loss, if anything."""
        value = float(loss.detach())
        if not math.isfinite(value):
            return f"a loss of {value}"
        if not abs(self.gap) <= self.max_gap:
            return f"an energy gap of {self.gap:.3g} nats, beyond ±{self.max_gap:g}"
        return ""

    def passed(self, step: int) -> None:
        """Note that step number `step` went well."""
        if step % self.every == 0:
            self._good, self._next = self._next, self._snapshot(step)

    @torch.no_grad()
    def roll_back(self) -> int:
        """Set the module and the extra tensors back, and return the step they are from."""
        step, state, extra = self._good
        self.module.load_state_dict(state)
        for tensor, kept in zip(self.extra, extra, strict=True):
            tensor.copy_(kept)
        # The state kept since may be part of the trouble.
        self._next = self._good
        self.rollbacks += 1
        return step

    def _snapshot(self, step: int) -> tuple[int, dict[str, Tensor], list[Tensor]]:
        return step, snapshot(self.module), [t.detach().clone() for t in self.extra]
