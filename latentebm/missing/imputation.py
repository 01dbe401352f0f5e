"""Impute missing cells by self-normalised importance sampling over a model's latent, in constant memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.devices import beside
from latentebm.disk.walk import walked
from latentebm.missing.bound import Terms
from latentebm.missing.miwae import MIWAE, check_rows
from latentebm.progress import Track, silent
from latentebm.rng import normal, uniform, weighted_rows
from latentebm.sampling.importance.weights import check_log_weight, normalised

__all__ = ["Imputation", "TermsEnergy", "impute", "impute_each"]

CHUNK = 200  # draws of many rows held at once; on every device, since a row's random numbers depend on it
TermsEnergy = Callable[[Terms], Tensor]  # (K, N) of posterior draws: of the latent, or of the completed rows


class Imputation(NamedTuple):
    """Imputed rows and how well the weights behaved."""

    x: Tensor  # rows with every missing cell replaced by its conditional mean, or most probable class, (N, D)
    draws: Tensor  # completed rows drawn from the conditional distribution, (M, N, D), the same in observed cells
    latent: Tensor  # of each draw, (M, N, d)
    ess: Tensor  # relative effective sample size of each row's weights, (N,), in (0, 1]
    bound: Tensor  # importance-weighted bound of each row with all draws, (N,), nats


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

    With a not-MIWAE the weights include p(s|x); with a tilt they include :math:`e^{-E}`. Where they depend on the drawn
    cells :math:`\tilde x_{mis,k}` themselves (a not-MIWAE, or `of_rows`), the draws are averaged instead of their
    means given the latent, since the weights move the cells within that distribution, too.

    Arguments:
        x, mask: values and 1 = observed, (N, D); what missing cells hold is never read.
        draws: importance draws per row.
        multiple: completed copies of each row to draw, M.
        energy: tilt energies (K, N) of posterior draws in nats, or None.
        of_rows: whether that energy depends on the completed rows, and not on the latent alone.
        generator: source of all draws (CPU).
        cells: bound of the numbers held at once in one array: draws × rows × hidden units, columns or classes.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> model = MIWAE(["gaussian"] * 2, latent_dim=1, width=8)
        >>> x, mask = torch.tensor([[5.0, float("nan")]]), torch.tensor([[1, 0]])
        >>> done = impute(model, x, mask, multiple=3, generator=rng)
        >>> done.x[0, 0].item(), done.draws.shape
        (5.0, torch.Size([3, 1, 2]))
    """
    check_int("draws", draws)
    check_rows(x, mask)
    x, mask = beside(model, x), beside(model, mask)
    plan = _Plan.of(model, draws, len(x), cells, multiple, energy, of_rows)
    parts = walked(
        lambda rows: _impute_rows(model, *rows, plan, generator),
        list(zip(x.split(plan.rows), mask.split(plan.rows), strict=True)),
        "impute",
        lambda: [x, mask, *model.state_dict().values()],
        state=[generator],
        track=track,
    )
    axes = (0, 1, 1, 0, 0)  # of the rows, in each field
    return Imputation(*(torch.cat(each, axis) for each, axis in zip(zip(*parts, strict=True), axes, strict=True)))


@dataclass(frozen=True)
class _Plan:
    """What is wanted of each row, and how much of it is held at once."""

    draws: int
    rows: int  # at once
    chunk: int  # draws at once
    multiple: int = 0
    energy: TermsEnergy | None = None
    of_rows: bool = False

    @classmethod
    def of(cls, model: MIWAE, draws: int, rows: int, cells: int, *wanted: Any) -> _Plan:
        # Numbers of one draw of one row: classes make many parameters.
        each = max(model.likelihood.n_parameters, model.likelihood.n_features, 128)
        most = max(1, cells // each)
        chunk = min(CHUNK, most)
        at_once = max(1, min(rows, most // min(draws, chunk)))
        # Many rows share a chunk of draws; few take more draws at once, which costs fewer calls.
        return cls(draws, at_once, max(chunk, min(1000, most) // at_once), *wanted)


def _impute_rows(model: MIWAE, x: Tensor, mask: Tensor, plan: _Plan, generator: torch.Generator) -> Imputation:
    sums, draws = _summed(model, x, mask, plan, generator), plan.draws
    keep, point = mask.bool(), model.likelihood.point
    many, latent = x.new_zeros(0, *x.shape), x.new_zeros(0, len(x), model.latent_dim)
    if plan.multiple:
        many, latent = torch.where(keep, x, point(sums.completed)), sums.latent
    ess = (2 * sums.log_sum - sums.log_square).exp() / draws
    bound = sums.log_sum - math.log(draws)
    return Imputation(torch.where(keep, x, point(sums.mean)), many, latent, ess, bound)


def _summed(
    model: MIWAE, x: Tensor, mask: Tensor, plan: _Plan, generator: torch.Generator, noise: Tensor | None = None
) -> _Sums:  # fmt: skip
    """What the draws of rows x (N, D) add up to."""
    multiple, draws = plan.multiple, plan.draws
    sums, drawn = _Sums(x, multiple, generator), plan.of_rows or model.missing is not None
    for start in range(0, draws, plan.chunk):
        k = min(plan.chunk, draws - start)
        part = None if noise is None else noise[start : start + k]
        terms = model.terms(x, mask, k, complete=multiple > 0 or drawn, noise=part, generator=generator)
        features = terms.completed if drawn else model.likelihood.mean(terms.parameter)
        sums.add(_log_weight(terms, plan.energy), features, terms)
    return sums


def _log_weight(terms: Terms, energy: TermsEnergy | None) -> Tensor:
    if energy is None:
        return terms.log_weight
    tilt, shape = energy(terms), terms.log_likelihood.shape
    if not isinstance(tilt, Tensor) or tilt.shape != shape:
        got = tuple(tilt.shape) if isinstance(tilt, Tensor) else type(tilt).__name__
        raise fail("energy", f"one number per draw and row, {tuple(shape)}", got, "return a tensor (K, N)")
    return check_log_weight(terms.log_weight - tilt)


@torch.no_grad()
def impute_each(
    models: Sequence[MIWAE], x: Tensor, mask: Tensor, *, draws: int = 1000, seed: int, cells: int = 2_000_000,
    track: Track = silent,
) -> Tensor:  # fmt: skip
    r"""Single imputation of every row by itself: up to rounding, a row's result does not depend on its company.

    .. math:: z_{ik} = \mu(x_{i,obs}) + \sigma(x_{i,obs})\,\varepsilon_k, \quad \varepsilon_k
              \text{ the same for every row}

    Of several models of one form the means are averaged, of classes their probabilities. Where weights depend on drawn
    cells (a not-MIWAE, of which one is taken), each row has draws of its own, seeded by its content. Rows share
    their draws, so use :func:`impute` for multiple imputation, where they must not.

    Example:
        >>> models = [MIWAE(["gaussian"] * 2, latent_dim=1, width=8)]
        >>> x, mask = torch.randn(4, 2), torch.tensor([[1, 0]] * 4)
        >>> torch.allclose(impute_each(models, x, mask, seed=0)[2:], impute_each(models, x[2:], mask[2:], seed=0))
        True
    """
    check_rows(x, mask)
    model = models[0]
    x, mask = beside(model, x), beside(model, mask)
    if model.missing is not None:
        return _by_content(model, x, mask, draws, seed, track)
    plan, generator = _Plan.of(model, check_int("draws", draws), len(x), cells), torch.Generator().manual_seed(seed)
    noise = normal((draws, 1, model.latent_dim), generator, x)

    def filled(rows: tuple[Tensor, Tensor]) -> Tensor:
        means = [_summed(one, *rows, plan, generator, noise).mean for one in models]
        return torch.where(rows[1].bool(), rows[0], model.likelihood.point(torch.stack(means).mean(0)))

    parts = list(zip(x.split(plan.rows), mask.split(plan.rows), strict=True))
    weights = [tensor for one in models for tensor in one.state_dict().values()]
    return torch.cat(walked(filled, parts, "impute", lambda: [x, mask, *weights], track=track))


def _by_content(model: MIWAE, x: Tensor, mask: Tensor, draws: int, seed: int, track: Track) -> Tensor:
    """Each row with its own generator, of the same seed for the same observed cells."""
    seen = mask.bool()
    rows, back = torch.unique(torch.cat([x.where(seen, 0), seen.to(x)], 1), dim=0, return_inverse=True)

    def filled(row: Tensor) -> Tensor:
        key = hashlib.blake2b(row.cpu().numpy().tobytes(), digest_size=8, salt=seed.to_bytes(8, "little")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little", signed=True))
        return impute(model, *row.chunk(2, 1), draws=draws, generator=generator).x

    known = walked(filled, rows.split(1), "impute", lambda: [rows, *model.state_dict().values()], track=track)
    return torch.cat(known)[back]


class _Sums:
    """Of each row: running weighted mean of the features, and M independent weighted reservoirs of one draw."""

    def __init__(self, x: Tensor, multiple: int, generator: torch.Generator) -> None:
        self.log_sum = self.log_square = x.new_full((len(x),), -math.inf)
        self.multiple, self.generator = multiple, generator
        self.mean = self.completed = self.latent = x.new_zeros(())

    def add(self, log_weight: Tensor, features: Tensor, terms: Terms) -> None:
        total = torch.logaddexp(self.log_sum, torch.logsumexp(log_weight, 0))
        old = (self.log_sum - total).exp()
        self.mean = old.unsqueeze(-1) * self.mean + ((log_weight - total).exp().unsqueeze(-1) * features).sum(0)
        self.log_sum = total
        self.log_square = torch.logaddexp(self.log_square, torch.logsumexp(2 * log_weight, 0))
        if self.multiple:
            self._reserve(log_weight, 1 - old, terms)

    def _reserve(self, log_weight: Tensor, fresh: Tensor, terms: Terms) -> None:
        """Each place moves to a draw of this chunk with the chunk's share of all weight so far: streaming SIR."""
        k = weighted_rows(normalised(log_weight).T, self.multiple, self.generator).T
        moves = (uniform(k.shape, self.generator, fresh) < fresh).unsqueeze(-1)
        rows = torch.arange(len(fresh), device=fresh.device)
        self.completed = torch.where(moves, terms.completed[k, rows], self.completed)
        self.latent = torch.where(moves, terms.z[k, rows], self.latent)
