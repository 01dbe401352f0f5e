"""States of a module that a fit keeps: the best, the average along the way, and good ones to go back to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_number

__all__ = ["Average", "BestState", "Guard"]


def _snapshot(module: nn.Module) -> dict[str, Tensor]:
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
        self.state = _snapshot(module)
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
                self.state = _snapshot(self.module)
            return
        for name, value in self.module.named_parameters():
            mask = better.view(-1, *[1] * (value.ndim - 1))
            self.state[name] = torch.where(mask, value.detach(), self.state[name])

    def restore(self) -> None:
        """Load the kept state into the module."""
        self.module.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"state": self.state, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.state, self.best, self.stale = state["state"], state["best"], state["stale"]


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

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.steps, self.mean = state["steps"], state["mean"]


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
        >>> guard = Guard(nn.Linear(1, 1), max_gap=5.0)
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
        self._good = self._next = self._state(0)

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
            self._good, self._next = self._next, self._state(step)

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

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {name: getattr(self, name) for name in ("gap", "rollbacks", "_good", "_next")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.gap, self.rollbacks = state["gap"], state["rollbacks"]
        self._good, self._next = state["_good"], state["_next"]

    def _state(self, step: int) -> tuple[int, dict[str, Tensor], list[Tensor]]:
        return step, _snapshot(self.module), [t.detach().clone() for t in self.extra]
