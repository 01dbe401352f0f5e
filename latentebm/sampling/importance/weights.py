"""Log-weights that come in chunks: effective sample size, Pareto-k̂ and log Z in constant memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, fail

__all__ = ["BASE_DRAWS", "LEAST_ESS", "WeightSums", "check_log_weight", "check_weights"]
__all__ += ["base_chunk", "double", "ess", "log_add", "normalised"]

LEAST_ESS = 0.01  # effective share of the weights below which they have collapsed
FEWEST = 5  # largest weights that a tail is fitted to
ALIKE = 1e-6  # relative difference of weights below the resolution of single precision
BASE_DRAWS = 65_536  # at once, on a GPU four times as many: the draws of a seed depend on it


def base_chunk(chunk: int | None, device: torch.device) -> int:
    """Base draws at once: as asked for, or by the device.

    Example:
        >>> base_chunk(None, torch.device("cpu"))
        65536
    """
    own = 4 * BASE_DRAWS if device.type == "cuda" else BASE_DRAWS
    return own if chunk is None else check_int("chunk", chunk)


def normalised(log_weight: Tensor, dim: int = 0) -> Tensor:
    r"""Self-normalised weights :math:`e^{l_k} / \sum_j e^{l_j}` along an axis of log-weights, shaped as they are.

    Example:
        >>> normalised(torch.tensor([0.0, 0.0, -torch.inf]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    if bool(torch.isneginf(check_log_weight(log_weight)).all(dim).any()):
        raise fail("log_weight", "a weight above zero", "zero weights only", "lower the energy or widen the base")
    return log_weight.softmax(dim)


def ess(log_weight: Tensor, dim: int = 0) -> Tensor:
    r"""Effective share of (0, 1] of log-weights along an axis, :math:`1 / (K \sum_k \bar w_k^2)`.

    Example:
        >>> ess(torch.tensor([0.0, 0.0, 0.0, -torch.inf]))
        tensor(0.7500)
    """
    return 1 / (log_weight.shape[dim] * normalised(log_weight, dim).square().sum(dim))


def check_log_weight(log_weight: Tensor) -> Tensor:
    """Return log-weights, or raise a ValueError if one is NaN or +∞."""
    if not bool((log_weight < math.inf).all()):  # NaN compares false too
        raise fail("log_weight", "numbers below infinity", "NaN or inf", "check the energy: it must not be NaN or −∞")
    return log_weight


class WeightSums:
    r"""Running sums over log-weights that come in chunks: all that ESS, log Z and Pareto-k̂ need.

    .. math:: \rho = \frac{(\sum w)^2}{K \sum w^2}, \quad \log \hat Z = \log \tfrac1K \sum w, \quad
        \mathrm{se} = \sqrt{(1/\rho - 1) / K}

    The number K of log-weights that will come sets the length of the tail kept for Pareto-k̂; ``log_sum`` is the log of
    the sum of the weights so far.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://arxiv.org/abs/1507.02646

    Example:
        >>> sums = WeightSums(4)
        >>> _ = sums.add(torch.tensor([0.0, 0.0, 0.0, -torch.inf]))
        >>> round(sums.ess, 4), round(sums.log_z, 4)
        (0.75, -0.2877)
    """

    def __init__(self, size: int) -> None:
        self.size = check_int("size", size)
        self.count = 0
        self.log_sum = -math.inf
        self._squares = -math.inf
        self._length = math.ceil(min(size / 5, 3 * math.sqrt(size)))
        self._top = torch.empty(0, dtype=torch.float64)

    def add(self, log_weight: Tensor) -> Tensor:
        """Take a chunk (n,) of log-weights and return it in double precision; NaN and +∞ are refused."""
        chunk = check_log_weight(double(log_weight))
        self.count += len(chunk)
        self.log_sum = log_add(self.log_sum, chunk)
        self._squares = log_add(self._squares, 2 * chunk)
        held = self._top.to(chunk.device)
        top = torch.cat([held, chunk if len(held) <= self._length else chunk[chunk > held[-1]]])
        self._top = top.topk(min(len(top), self._length + 1)).values
        return chunk

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set them to those of another."""
        vars(self).update(state)

    @property
    def ess(self) -> float:
        """Effective share of the weights seen, of (0, 1]; 0 if all are zero."""
        return math.exp(2 * self.log_sum - self._squares) / self.count if self.log_sum > -math.inf else 0.0

    def merge(self, other: WeightSums) -> WeightSums:
        """Take in the sums of other weights of the same whole: the sums, and the tail, are those of all weights.

        Example:
            >>> parts = [WeightSums(4), WeightSums(4)]
            >>> _ = [part.add(torch.tensor([0.0, x])) for part, x in zip(parts, (0.0, -torch.inf), strict=True)]
            >>> round(parts[0].merge(parts[1]).ess, 4)
            0.75
        """
        self.count += other.count
        self.log_sum = log_add(self.log_sum, torch.tensor([other.log_sum], dtype=torch.float64))
        self._squares = log_add(self._squares, torch.tensor([other._squares], dtype=torch.float64))
        top = torch.cat([self._top.cpu(), other._top.cpu()])
        self._top = top.topk(min(len(top), self._length + 1)).values
        return self

    @property
    def log_z(self) -> float:
        """Log of the mean weight."""
        return self.log_sum - math.log(self.count)

    @property
    def log_z_se(self) -> float:
        """Standard error of `log_z`."""
        return math.sqrt(max(0.0, 1 / self.ess - 1) / self.count) if self.ess else math.inf

    @property
    def pareto_k(self) -> float | None:
        """Shape of the generalised Pareto tail fitted to the largest weights; None if too few, or all alike."""
        excess = self._excess()
        if len(excess) < FEWEST or float(excess[0]) < ALIKE:
            return None
        from pyro.ops.stats import fit_generalized_pareto  # here, since Pyro takes a second

        return float(fit_generalized_pareto(excess.clamp(min=1e-30))[0])

    @property
    def pareto_k_threshold(self) -> float:
        """Largest Pareto-k̂ at which this many weights give a reliable estimate."""
        return min(1 - 1 / math.log10(self.count), 0.7) if self.count > 10 else 0.0

    def report(self) -> dict[str, Any]:
        """All of the above as plain numbers, nats; reliable if ESS ≥ 1 % of the pool and k̂ is below its threshold."""
        names = ("ess", "pareto_k", "pareto_k_threshold", "log_z", "log_z_se")
        found = {name: getattr(self, name) for name in names}
        excess, k = self._excess(), found["pareto_k"]
        alike = len(excess) >= FEWEST and float(excess[0]) < ALIKE  # no tail at all is the lightest
        light = alike if k is None else k < found["pareto_k_threshold"]
        return found | {"reliable": found["ess"] >= LEAST_ESS and light}

    def _excess(self) -> Tensor:
        """What the largest weights have above the next one, relative to the largest, in falling order."""
        top = self._top.cpu()
        tail = (top - top[:1]).exp()
        return tail[:-1] - tail[-1:] if self.log_sum > -math.inf else tail[:0]


def double(log_weight: Tensor) -> Tensor:
    """Log-weights in double precision: on their device, or on the CPU where the device has none."""
    return (log_weight.cpu() if log_weight.device.type == "mps" else log_weight).detach().double()


def check_weights(sums: WeightSums) -> WeightSums:
    """Return the sums, or raise a ValueError if every weight is zero."""
    if sums.log_sum == -math.inf:
        got = f"{sums.count} of zero"
        raise fail("log_weight", "at least one weight above zero", got, "lower the energy or widen the base")
    return sums


def log_add(log_sum: float, chunk: Tensor) -> float:
    """Log of the sum of exp(log_sum) and of the exponentials of a chunk (n,)."""
    other = float(torch.logsumexp(chunk, 0))
    high, low = max(log_sum, other), min(log_sum, other)
    return high if high == -math.inf else high + math.log1p(math.exp(low - high))
