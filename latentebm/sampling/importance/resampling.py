"""Resampling in proportion to weights, in one or two passes over chunks and in constant memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, fail
from latentebm.rng import on_device, permutation
from latentebm.sampling.importance.weights import WeightSums, check_weights, log_add

__all__ = ["RESAMPLING", "Resampler", "TwoPass", "check_filled", "make_resampler", "pick_columns", "resample"]


class Resampler(ABC):
    """Draws n pool points in proportion to their weights, fed chunk by chunk.

    The weights are where the generator is; ``index`` holds the pool index of each draw, (n,), −1 where it is not drawn
    yet.
    """

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n = check_int("n", n)
        self.generator = generator
        self.index = torch.full((n,), -1, dtype=torch.long, device=generator.device)
        self._seen = 0

    @abstractmethod
    def update(self, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Take a chunk of float64 log-weights: the positions among the n that it fills, and its rows that fill them."""

    def finish(self) -> Tensor:
        """Order (n,) in which the draws are to be given, such that every prefix is a fair sample."""
        return torch.arange(self.n, device=self.index.device)

    def state_dict(self) -> dict[str, Any]:
        """How far a resampler is, but for the generator's state."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int | float | Tensor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set it to where another was."""
        vars(self).update(state)

    def uniform(self, n: int) -> Tensor:
        """All the chance in the choices: `n` uniform numbers in double precision."""
        return torch.rand(n, generator=self.generator, device=self.generator.device, dtype=torch.float64)

    def _take(self, draws: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        self.index[draws] = self._seen + rows
        self._seen += size
        return draws, rows


class Multinomial(Resampler):
    """Independent draws: n weighted reservoirs of one, each replaced by a chunk in proportion to the chunk's weight."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        super().__init__(n, generator)
        self._log_sum = -math.inf

    def update(self, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        before, self._log_sum = self._log_sum, log_add(self._log_sum, log_weight)
        if self._log_sum == -math.inf:
            none = torch.empty(0, dtype=torch.long, device=log_weight.device)
            return self._take(none, none, len(log_weight))
        fresh = self.uniform(self.n) >= math.exp(before - self._log_sum)
        replaced = fresh.nonzero()[:, 0]
        rows = _pick(log_weight, self.uniform(len(replaced)))
        return self._take(replaced, rows, len(log_weight))


class WithoutReplacement(Resampler):
    """Distinct draws: the n largest keys log w + Gumbel, in the order of successive sampling."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        super().__init__(n, generator)
        self._keys = torch.full((n,), -math.inf, dtype=torch.float64, device=generator.device)

    def update(self, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        keys = log_weight - self.uniform(len(log_weight)).log_().neg_().log_()
        best, where = torch.cat([self._keys, keys]).topk(self.n)
        fresh = where[(where >= self.n) & (best > -math.inf)] - self.n
        free = torch.ones(self.n, dtype=torch.bool, device=keys.device)
        free[where[where < self.n]] = False
        draws = free.nonzero()[:, 0][: len(fresh)]
        self._keys[draws] = keys[fresh]
        return self._take(draws, fresh, len(log_weight))

    def finish(self) -> Tensor:
        return self._keys.argsort(descending=True)


class TwoPass(Resampler):
    """A resampler that needs the log of the sum of all weights before its first chunk, and shuffles its draws."""

    def start(self, log_sum: float) -> None:
        """Begin the second pass over the pool."""
        self._log_sum, self._filled = log_sum, 0

    def finish(self) -> Tensor:
        """A random order."""
        return permutation(self.n, self.generator, self.index.device)


class Systematic(TwoPass):
    """One uniform shift of an even grid over the cumulated weights; least variance."""

    def start(self, log_sum: float) -> None:
        super().start(log_sum)
        self._below = 0.0
        # Rounding in the cumulated weights must not push a grid point off either end.
        shift = float(self.uniform(1))
        self._shift = min(max(shift, self.n * 1e-11), 1 - self.n * 1e-11)

    def update(self, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Give each row the grid points that fall within its share of the cumulated weights."""
        ends = self._below + (log_weight - self._log_sum).exp().cumsum(0) * self.n
        self._below = float(ends[-1])
        upto = (ends - self._shift).ceil().clamp(0, self.n).long()  # grid points below each end
        rows = torch.repeat_interleave(upto.diff(prepend=upto.new_tensor([self._filled])).clamp(min=0))
        draws = torch.arange(self._filled, self._filled + len(rows), device=rows.device)
        self._filled += len(rows)
        return self._take(draws, rows, len(log_weight))


class Residual(TwoPass):
    """⌊n w⌋ copies of each point, the rest drawn from the remainders.

    Every place starts as a reservoir over the remainders; copies claim places from the front, and the reservoirs that
    are left at the end are the independent draws of the rest.
    """

    def __init__(self, n: int, generator: torch.Generator) -> None:
        super().__init__(n, generator)
        self._rest = Multinomial(n, generator)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rest": self._rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = dict(state)
        self._rest.load_state_dict(own.pop("rest"))
        super().load_state_dict(own)

    def update(self, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Copy the whole parts to places of their own and let the remainders compete for the others."""
        expected = (log_weight - self._log_sum).exp() * self.n
        whole = expected.floor()
        copies = torch.repeat_interleave(whole.long())[: self.n - self._filled]
        claimed = torch.arange(self._filled, self._filled + len(copies), device=copies.device)
        self._filled += len(copies)
        draws, rows = self._rest.update((expected - whole).log())
        open_ = draws >= self._filled
        return self._take(torch.cat([claimed, draws[open_]]), torch.cat([copies, rows[open_]]), len(log_weight))


RESAMPLING: dict[str, type[Resampler]] = {
    "multinomial": Multinomial,
    "systematic": Systematic,
    "residual": Residual,
    "without_replacement": WithoutReplacement,
}


def make_resampler(resampling: str, n: int, generator: torch.Generator) -> Resampler:
    """Build the resampler with a name, or raise a ValueError if it is unknown or n is below 1."""
    return RESAMPLING[check_choice("resampling", resampling, RESAMPLING)](n, generator)


def resample(log_weight: Tensor, n: int, *, resampling: str = "multinomial", generator: torch.Generator) -> Tensor:
    r"""Draw indices (n,) in proportion to :math:`e^{\mathrm{log\_weight}}` of (K,); every prefix is a fair sample.

    `resampling` is ``multinomial`` (independent), ``systematic``, ``residual``, or ``without_replacement`` (distinct).

    Raises:
        ValueError: the weights are not (K,), all zero, NaN or infinite, or too few for distinct draws.

    References:
        Comparison of resampling schemes for particle filtering (Douc, Cappé and Moulines, 2005),
        https://arxiv.org/abs/cs/0507025; Weighted random sampling with a reservoir (Efraimidis and Spirakis, 2006)

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> resample(torch.tensor([0.0, -torch.inf, 0.0]), 4, resampling="systematic", generator=g).sort().values
        tensor([0, 0, 2, 2])
    """
    if not isinstance(log_weight, Tensor) or log_weight.ndim != 1 or not len(log_weight):
        got = tuple(log_weight.shape) if isinstance(log_weight, Tensor) else type(log_weight).__name__
        raise fail("log_weight", "a tensor of shape (K,), K ≥ 1", got, "pass one log-weight per point")
    sums = WeightSums(len(log_weight))
    chunk = sums.add(log_weight)
    generator = on_device(generator, chunk.device)
    resampler, chunk = make_resampler(resampling, n, generator), chunk.to(generator.device)
    check_weights(sums)
    if isinstance(resampler, TwoPass):
        resampler.start(sums.log_sum)
    resampler.update(chunk)
    return check_filled(resampler).index[resampler.finish()].to(log_weight.device)


def check_filled(resampler: Resampler) -> Resampler:
    """Return the resampler, or raise a ValueError if fewer points have a weight than distinct draws are wanted."""
    missing = int((resampler.index < 0).sum())
    if missing:
        got = f"{resampler.n - missing} points of positive weight"
        raise fail("n", f"at most the distinct points in the pool for {resampler.n} draws", got, "enlarge the pool")
    return resampler


def _pick(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Rows drawn in proportion to their weights, by inversion; a row of weight zero is never hit."""
    cumulated = (log_weight - log_weight.max()).exp().cumsum(0)
    return torch.searchsorted(cumulated, uniform * cumulated[-1], right=True).clamp_(max=len(log_weight) - 1)


def pick_columns(log_weight: Tensor, generator: torch.Generator) -> Tensor:
    """One column (N,) of each row of log-weights (N, K), drawn in proportion to the weights by Gumbel noise.

    Example:
        >>> pick_columns(torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]]), torch.Generator())
        tensor([0, 1])
    """
    noise = torch.empty(log_weight.shape, dtype=log_weight.dtype, device=generator.device)
    return (log_weight - noise.exponential_(generator=generator).to(log_weight.device).log()).argmax(1)
