"""The generator of rows: each column's code from those before it, each by a small perceptron."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, check_int
from latentebm.chunks import chunk_size
from latentebm.rng import normal

__all__ = ["RowModel"]

BELOW_ONE = 1 - 2**-24  # the largest single-precision number below one


class RowModel(nn.Module):
    r"""Autoregressive model of coded rows, read as a map from a standard normal latent.

    .. math:: \log p(x) = \sum_j \log p_j(x_j \mid x_1, \dots, x_{j-1}), \qquad
              x_j = F_j^{-1}\big(\Phi(u_j) \mid x_1, \dots, x_{j-1}\big), \quad u \sim N(0, I)

    The likelihood is exact, so rows can be drawn given the values of some columns with known weights. The latent has
    2D numbers: D pick the codes, D the positions within intervals of numbers.

    Arguments:
        sizes: number of codes of each of the D columns.
        order: columns in the order they are drawn; None for the table's own.
        width: hidden units of each column's perceptron, which has two hidden layers.

    References:
        The Neural Autoregressive Distribution Estimator (Larochelle and Murray, 2011),
        https://proceedings.mlr.press/v15/larochelle11a.html; MADE (Germain et al., 2015),
        https://arxiv.org/abs/1502.03509

    Example:
        >>> model = RowModel([2, 3])
        >>> rows = torch.tensor([[a, b] for a in range(2) for b in range(3)])
        >>> round(model.log_prob(rows).exp().sum().item(), 4)
        1.0
        >>> model.decode(torch.zeros(1, 4)).shape
        torch.Size([1, 4])
    """

    def __init__(self, sizes: Sequence[int], *, order: Sequence[int] | None = None, width: int = 64) -> None:
        super().__init__()
        self.order = list(range(len(sizes))) if order is None else list(order)
        self.config: dict[str, Any] = {"sizes": list(sizes), "order": self.order, "width": width}
        self.sizes = [sizes[j] for j in self.order]  # as drawn, and so is everything below
        self.back = [self.order.index(j) for j in range(len(sizes))]
        self.width, self.latent_dim = check_int("width", width), 2 * len(sizes)
        D = len(sizes)
        self.start: Tensor
        self.mask: Tensor
        self.register_buffer("start", torch.tensor([0, *self.sizes[:-1]]).cumsum(0), persistent=False)
        source = torch.repeat_interleave(torch.arange(D), torch.tensor(self.sizes))
        # A column's code is read by the columns after it alone.
        self.register_buffer("mask", (source[:, None] < torch.arange(D)).float().unsqueeze(2), persistent=False)
        self.reading = nn.Parameter(torch.randn(sum(sizes), D, width) / math.sqrt(max(1, D)))
        self.bias = nn.Parameter(torch.zeros(D, width))
        self.hidden = nn.Parameter(torch.randn(D, width, width) / math.sqrt(width))
        self.hidden_bias = nn.Parameter(torch.zeros(D, 1, width))
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)

    def loss(self, codes: Tensor) -> Tensor:
        """Negative log-likelihood (N,) of coded rows (N, D), nats."""
        x = codes[:, self.order]
        read = F.embedding_bag(x + self.start, (self.reading * self.mask).flatten(1), mode="sum")
        first = F.silu(read.unflatten(1, self.bias.shape) + self.bias).transpose(0, 1)
        second = first + F.silu(torch.baddbmm(self.hidden_bias, first, self.hidden))
        heads = zip(self.heads, second, x.T, strict=True)
        nats = [F.cross_entropy(head(hidden), column, reduction="none") for head, hidden, column in heads]
        return torch.stack(nats).sum(0)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-likelihood (N,) of coded rows (N, D), nats, without gradient."""
        with torch.no_grad():
            return torch.cat([-self.loss(part) for part in codes.split(chunk_size(1024))])

    def decode(self, z: Tensor) -> Tensor:
        """Codes and positions (N, 2D) of latents (N, 2D)."""
        codes, position, _ = self.rows(z)
        return torch.cat([codes.to(position), position], 1)

    @torch.no_grad()
    def rows(
        self, z: Tensor, allowed: Mapping[int, Tensor] | None = None, *, known: Tensor | None = None,
        stop: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Codes (N, D), positions (N, D) and log-weights (N,) of latents (N, 2D).

        Where `allowed` holds which codes (C,) of a column may come, its code is drawn among these, and the log-weight
        is the log of the probability that one of them would have come anyway: likelihood weighting, as in Bayesian
        networks (Fung and Chang, 1990). Of the columns in drawing order, the first `stop` alone are drawn, the codes of
        the others being −1; codes of `known` (N, D) that are not −1 are taken from there.
        """
        check_event("z", z, (self.latent_dim,))
        size = chunk_size(2048)
        before = torch.full_like(z[:, : len(self.sizes)], -1, dtype=torch.long) if known is None else known
        reading = self.reading.transpose(0, 1).contiguous()  # one column's at a time fits the cache
        chunks = zip(z.split(size), before.split(size), strict=True)
        parts = [self._rows(part, allowed or {}, codes, stop, reading) for part, codes in chunks]
        codes, position, log_weight = (torch.cat(p) for p in zip(*parts, strict=True))
        return codes, position, log_weight

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Latents (n, 2D) from the standard normal."""
        return normal((n, self.latent_dim), generator, self.bias)

    def _rows(
        self, z: Tensor, allowed: Mapping[int, Tensor], known: Tensor, stop: int | None, reading: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        D = len(self.sizes)
        u = torch.special.ndtr(z.double()).float().clamp(max=BELOW_ONE)
        codes, log_weight, read = known.clone(), z.new_zeros(len(z)), torch.empty_like(known)
        for j, column in enumerate(self.order[:stop]):
            if bool((codes[:, column] < 0).any()):
                p = self._probabilities(j, read[:, :j], reading)
                if column in allowed:
                    p = p * allowed[column].to(p)
                    log_weight = log_weight + p.sum(1).log()
                codes[:, column] = inverted(p, u[:, column])
            read[:, j] = self.start[j] + codes[:, column]
        return codes, u[:, D:], log_weight

    def _probabilities(self, j: int, read: Tensor, reading: Tensor) -> Tensor:
        """Probabilities (N, C) of the codes of the j-th column drawn, given the numbers (N, j) of those before it."""
        seen = F.embedding_bag(read, reading[j], mode="sum") if j else read.new_zeros(len(read), self.width).float()
        first = F.silu(seen + self.bias[j])
        second = first + F.silu(first @ self.hidden[j] + self.hidden_bias[j])
        return cast(Tensor, self.heads[j](second).softmax(1))


def inverted(p: Tensor, u: Tensor) -> Tensor:
    """Codes (N,) at which the cumulated weights (N, C) pass a share u (N,) of their sum; none of weight zero."""
    ends = p.cumsum(1)
    return torch.searchsorted(ends, (u * ends[:, -1]).unsqueeze(1), right=True).squeeze(1).clamp(max=p.shape[1] - 1)
