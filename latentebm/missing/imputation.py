"""Impute missing cells by self-normalised importance sampling over a model's latent, in constant memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.missing.fit_miwae import log_weights
from latentebm.missing.miwae import MIWAE, Terms
from latentebm.progress import Track, silent

__all__ = ["Imputation", "TermsEnergy", "impute", "impute_each"]

CHUNK = 200  # draws of many rows held at once
# Energies (K, N) of posterior draws: of the latent, or of the completed rows.
TermsEnergy = Callable[[Terms], Tensor]


@dataclass
class Imputation:
    r"""Imputed rows and how well the weights behaved.

    Attributes:
        x: rows with every missing cell replaced by its conditional mean, or likeliest class, (N, D).
        draws: completed rows drawn from the conditional law, (M, N, D); observed cells are the same in all.
        latent: the latent of each draw, (M, N, d).
        ess: relative effective sample size of each row's weights, (N,), in (0, 1].
        bound: importance-weighted bound of each row with all draws, (N,), nats.

    Example:
        >>> Imputation(*(torch.zeros(1) for _ in range(5))).ess.shape
        torch.Size([1])
    """

    x: Tensor
    draws: Tensor
    latent: Tensor
    ess: Tensor
    bound: Tensor


@torch.no_grad()
def impute(
    model: MIWAE,
    x: Tensor,
    mask: Tensor,
    *,
    draws: int = 1000,
    multiple: int = 0,
    energy: TermsEnergy | None = None,
    of_rows: bool = False,
    generator: torch.Generator,
    cells: int = 8_000_000,
    track: Track = silent,
) -> Imputation:
    r"""Single imputation by SNIS and multiple imputation by resampling.

    .. math:: \mathrm{E}[x_{mis}|x_{obs}] \approx \sum_k \frac{w_k}{\sum_l w_l}\, \mathrm{E}[x_{mis}|z_k], \qquad
              x_{mis}^{(m)} = \tilde x_{mis,k},\; P(k) \propto w_k

    With a not-MIWAE the weights include p(s|x); with a tilt they include :math:`e^{-E}`. Where weights depend on the
    drawn cells :math:`\tilde x_{mis,k}` themselves, as these two's do, the draws are averaged instead of their means
    given the latent: the weights move the cells within that law, too.

    Arguments:
        model: fitted MIWAE or not-MIWAE.
        x: values (N, D); what missing cells hold is never read.
        mask: 1 = observed, (N, D).
        draws: importance draws a row.
        multiple: completed rows to draw, M.
        energy: tilt energies (K, N) of posterior draws, or none.
        of_rows: whether that energy depends on the completed rows, and not on the latent alone.
        generator: source of all draws (CPU).
        cells: bound of the numbers held at once, draws × rows × columns or hidden units.
        track: shows progress.

    Raises:
        ValueError: shapes disagree, or no draws are asked for.

    References:
        MIWAE: Deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> model = MIWAE(["gaussian"] * 2, latent_dim=1, width=8)
        >>> x, mask = torch.tensor([[5.0, float("nan")]]), torch.tensor([[1, 0]])
        >>> done = impute(model, x, mask, multiple=3, generator=rng)
        >>> done.x[0, 0].item(), done.draws.shape
        (5.0, torch.Size([3, 1, 2]))
    """
    check_int("draws", draws)
    rows = max(1, min(len(x), cells // (max(x.shape[1], 128) * min(draws, 200))))
    parts = [
        _impute_rows(model, a, b, draws, multiple, energy, of_rows, generator)
        for a, b in track(list(zip(x.split(rows), mask.split(rows), strict=True)), "impute")
    ]
    joined = [torch.cat([getattr(p, n) for p in parts], 1 if n in ("draws", "latent") else 0) for n in _FIELDS]
    return Imputation(*joined)


_FIELDS = ("x", "draws", "latent", "ess", "bound")


def _impute_rows(
    model: MIWAE, x: Tensor, mask: Tensor, draws: int, multiple: int, energy: TermsEnergy | None,
    of_rows: bool, generator: torch.Generator,
) -> Imputation:  # fmt: skip
    sums, drawn = _Sums(len(x), multiple), of_rows or model.missing is not None
    left = draws
    while left:
        # Many rows share a chunk of draws; few take more draws at once, which costs fewer calls.
        k = min(left, max(CHUNK, 1000 // len(x)))
        terms = model.terms(x, mask, k, complete=multiple > 0 or drawn, generator=generator)
        log_weight = log_weights(model, terms)
        features = terms.completed if drawn else model.likelihood.mean(terms.parameter)
        sums.add(log_weight if energy is None else log_weight - energy(terms), features, terms, generator)
        left -= k
    keep = mask.bool()
    like = model.likelihood
    values = torch.where(keep, x, like.point(sums.mean))
    many = torch.where(keep, x, like.point(sums.completed)) if multiple else x.new_zeros(0, *x.shape)
    bound = sums.log_sum - math.log(draws)
    ess = (2 * sums.log_sum - sums.log_square).exp() / draws
    return Imputation(values, many, sums.latent, ess, bound)


def impute_each(
    model: MIWAE, x: Tensor, mask: Tensor, *, draws: int = 1000, seed: int, track: Track = silent
) -> Tensor:  # fmt: skip
    r"""Single imputation of every row by itself: a row's result is the same in whatever company it comes.

    .. math:: \hat x_i = \mathrm{impute}(x_i;\ \text{draws seeded by } \mathrm{hash}(\mathrm{seed}, x_{i,obs}, s_i))

    Equal rows share their draws, so use :func:`impute` for multiple imputation, where they must not.

    Arguments:
        model: fitted MIWAE or not-MIWAE.
        x: values (N, D); what missing cells hold is never read.
        mask: 1 = observed, (N, D).
        draws: importance draws a row.
        seed: with a row's own content, of its draws.
        track: shows progress.

    Raises:
        ValueError: shapes disagree, or no draws are asked for.

    Example:
        >>> model = MIWAE(["gaussian"] * 2, latent_dim=1, width=8)
        >>> x, mask = torch.randn(4, 2), torch.tensor([[1, 0]] * 4)
        >>> torch.equal(impute_each(model, x, mask, seed=0)[2:], impute_each(model, x[2:], mask[2:], seed=0))
        True
    """
    if mask.shape != x.shape:
        raise fail("mask", f"the shape of x, {tuple(x.shape)}", tuple(mask.shape), "pass 1 = observed for each cell")
    seen = mask.bool()
    filled = torch.where(seen, x, torch.zeros_like(x))
    rows, back = torch.unique(torch.cat([filled, seen.to(x)], 1), dim=0, return_inverse=True)
    done = []
    for row in track(list(rows.split(1)), "impute"):
        key = hashlib.blake2b(row.numpy().tobytes(), digest_size=8, salt=seed.to_bytes(8, "little")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little", signed=True))
        done.append(impute(model, *row.chunk(2, 1), draws=draws, generator=generator).x)
    return torch.cat(done)[back]


class _Sums:
    """Running weighted mean of the features and M independent weighted reservoirs of one draw."""

    def __init__(self, n: int, multiple: int) -> None:
        self.log_sum = torch.full((n,), -math.inf)
        self.log_square = torch.full((n,), -math.inf)
        self.multiple = multiple
        self.mean, self.completed, self.latent = torch.zeros(()), torch.zeros(()), torch.zeros(multiple, n, 0)

    def add(self, log_weight: Tensor, features: Tensor, terms: Terms, generator: torch.Generator) -> None:
        total = torch.logaddexp(self.log_sum, torch.logsumexp(log_weight, 0))
        share = (log_weight - total).exp()
        fresh = (share.unsqueeze(-1) * features).sum(0)
        old = (self.log_sum - total).exp()
        self.mean = old.unsqueeze(-1) * self.mean + fresh
        self.log_sum = total
        self.log_square = torch.logaddexp(self.log_square, torch.logsumexp(2 * log_weight, 0))
        if self.multiple:
            self._reserve(log_weight, 1 - old, terms, generator)

    def _reserve(self, log_weight: Tensor, fresh: Tensor, terms: Terms, generator: torch.Generator) -> None:
        """Each place moves to a draw of this chunk with the chunk's share of all weight so far: streaming SIR."""
        n = len(fresh)
        k = torch.multinomial(log_weight.softmax(0).T, self.multiple, replacement=True, generator=generator).T
        moves = (torch.rand(self.multiple, n, generator=generator) < fresh).unsqueeze(-1)
        completed, latent = terms.completed[k, torch.arange(n)], terms.z[k, torch.arange(n)]
        first = not self.completed.ndim
        self.completed = completed if first else torch.where(moves, completed, self.completed)
        self.latent = latent if first else torch.where(moves, latent, self.latent)
