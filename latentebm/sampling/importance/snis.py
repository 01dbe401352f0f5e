"""Self-normalised importance sampling from the base distribution, in one pass and constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_rng, fail
from latentebm.progress import Track, silent
from latentebm.rng import child
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.importance.resampling import RESAMPLING, Resampler, check_filled, make_resampler
from latentebm.sampling.importance.weights import BASE_DRAWS, WeightSums, check_weights
from latentebm.sampling.target import Target, tilt_energy

__all__ = ["SNIS"]


@dataclass(frozen=True, kw_only=True)
class SNIS:
    r"""Self-normalised importance sampling: a pool of base draws, resampled in proportion to :math:`e^{-E}`.

    .. math:: u_k \sim p_0, \quad w_k = e^{-E(u_k)}, \quad P(\text{draw} = u_k) = w_k / \textstyle\sum_j w_j

    The pool is never held: n independent weighted reservoirs take the multinomial draws in one pass. Systematic and
    residual resampling know their counts only after a first pass, and replay the pool from the generator's state.

    Arguments:
        pool: base draws, K.
        chunk: base draws at once, which bounds the memory.
        resampling: ``multinomial`` (independent draws), ``systematic``, ``residual`` or ``without_replacement``
            (distinct draws; their distribution approaches the tilted one only as the pool outgrows n).

    Raises:
        ValueError: an argument lies outside its range.

    References:
        Using the SIR algorithm to simulate posterior distributions (Rubin, 1988); Weighted random sampling with a
        reservoir (Efraimidis and Spirakis, 2006)

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
        >>> draws = SNIS(pool=50_000).draw(tilt, 2000, generator=torch.Generator().manual_seed(0))
        >>> abs(draws.x.mean().item() + 1) < 0.1, abs(draws.diagnostics["log_z"] - 0.5) < 0.02
        (True, True)
    """

    pool: int = 1_000_000
    chunk: int = BASE_DRAWS
    resampling: str = "multinomial"

    def __post_init__(self) -> None:
        check_int("pool", self.pool)
        check_int("chunk", self.chunk)
        check_choice("resampling", self.resampling, RESAMPLING)

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted distribution.

        Returns:
            Draws whose diagnostics hold ``ess`` (as a share of the pool), ``pareto_k`` and its threshold, ``log_z`` and
            ``log_z_se`` in nats, ``duplicates`` (share of draws that repeat an earlier one) and ``reliable``.

        Raises:
            ValueError: `n` is below 1, energies are not one per point, all weights are zero, an energy is NaN or −∞, or
                distinct draws outnumber the pool.
        """
        check_int("n", n)
        check_rng(generator)
        if self.resampling == "without_replacement" and n > self.pool:
            raise fail("n", f"at most pool={self.pool} distinct draws", n, "enlarge the pool")
        resampler = make_resampler(self.resampling, n, child(generator))
        replay = generator.get_state()
        sums, kept = WeightSums(self.pool), _Kept()
        for u, log_weight in self._chunks(tilt, generator, track):
            chunk = sums.add(log_weight)
            if resampler.passes == 1:
                kept.fill(n, u, log_weight, resampler.update(chunk))
        check_weights(sums)
        if resampler.passes == 2:
            generator.set_state(replay)
            resampler.start(sums.log_sum)
            for u, log_weight in self._chunks(tilt, generator, track):
                kept.fill(n, u, log_weight, resampler.update(log_weight.double().cpu()))
        order = check_filled(resampler).finish()
        diagnostics = {"sampler": "snis", "pool": self.pool, **sums.report(), "duplicates": _duplicates(resampler)}
        latent, log_weight = kept.ordered(order)
        return gather_draws(tilt, latent, diagnostics, log_weight=log_weight)

    def _chunks(self, tilt: Target, generator: torch.Generator, track: Track) -> Iterator[tuple[Tensor, Tensor]]:
        sizes = [min(self.chunk, self.pool - start) for start in range(0, self.pool, self.chunk)]
        for size in track(sizes, "pool"):
            u = tilt.sample_base(size, generator=generator)
            yield u, -tilt_energy(tilt, u)


class _Kept:
    """The present holders of the n places."""

    latent: Tensor | None = None
    log_weight: Tensor

    def fill(self, n: int, u: Tensor, log_weight: Tensor, taken: tuple[Tensor, Tensor]) -> None:
        if self.latent is None:
            self.latent, self.log_weight = u.new_zeros((n, *u.shape[1:])), log_weight.new_zeros(n)
        draws, rows = (t.to(u.device) for t in taken)
        self.latent[draws], self.log_weight[draws] = u[rows], log_weight[rows]

    def ordered(self, order: Tensor) -> tuple[Tensor, Tensor]:
        if self.latent is None:
            raise RuntimeError("no chunk was seen")
        order = order.to(self.latent.device)
        return self.latent[order], self.log_weight[order]


def _duplicates(resampler: Resampler) -> float:
    return 1 - len(resampler.index.unique()) / resampler.n
