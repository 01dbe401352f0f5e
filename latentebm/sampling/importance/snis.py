"""Self-normalised importance sampling from the base distribution, in one pass and constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_rng, fail
from latentebm.disk.checkpoint import Resumable, fit_checkpoint
from latentebm.progress import Track, silent
from latentebm.rng import child, on_device
from latentebm.sampling.draws import Draws, base_chunks, gather_draws
from latentebm.sampling.importance.resampling import RESAMPLING, TwoPass, check_filled, make_resampler
from latentebm.sampling.importance.weights import WeightSums, base_chunk, check_weights, double
from latentebm.sampling.target import Target, probe, target_device

__all__ = ["SNIS"]


@dataclass(frozen=True, kw_only=True)
class SNIS:
    r"""Self-normalised importance sampling: a pool of base draws, resampled in proportion to :math:`e^{-E}`.

    .. math:: u_k \sim p_0, \quad w_k = e^{-E(u_k)}, \quad P(\text{draw} = u_k) = w_k / \textstyle\sum_j w_j

    The pool is never held: n independent weighted reservoirs take the multinomial draws in one pass. Systematic and
    residual resampling know their counts only after a first pass, and replay the pool from the generator's state.

    Of the `pool`, K base draws, `chunk` are held at once, by default 65,536, on a GPU four times as many. Draws by
    ``multinomial`` resampling are independent, those ``without_replacement`` distinct: their distribution comes near
    the tilted one only as the pool outgrows n.

    References:
        Using the SIR algorithm to simulate posterior distributions (Rubin, 1988)

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
        >>> draws = SNIS(pool=50_000).draw(tilt, 2000, generator=torch.Generator().manual_seed(0))
        >>> abs(draws.x.mean().item() + 1) < 0.1, abs(draws.diagnostics["log_z"] - 0.5) < 0.02
        (True, True)
    """

    pool: int = 1_000_000
    chunk: int | None = None
    resampling: str = "multinomial"

    def __post_init__(self) -> None:
        check_int("pool", self.pool)
        if self.chunk is not None:
            check_int("chunk", self.chunk)
        check_choice("resampling", self.resampling, RESAMPLING)

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points; the diagnostics are `WeightSums.report` and ``duplicates``, the share of repeated draws.

        Raises:
            ValueError: all weights are zero, an energy is NaN or −∞, or distinct draws outnumber the pool.
        """
        check_int("n", n)
        check_rng(generator)
        if self.resampling == "without_replacement" and n > self.pool:
            raise fail("n", f"at most pool={self.pool} distinct draws", n, "enlarge the pool")
        device = target_device(tilt) or generator.device
        choices, generator = on_device(child(generator), device), on_device(generator, device)
        resampler = make_resampler(self.resampling, n, choices)
        replay = generator.get_state()
        chunks = partial(base_chunks, tilt, self.pool, base_chunk(self.chunk, device), generator=generator, track=track)
        sums, held = WeightSums(self.pool), _Held(n)
        parts = [held, sums, resampler, choices, generator]
        with fit_checkpoint("pool", parts, self, lambda: [probe(tilt)]) as saved:
            saved.restore()
            if isinstance(resampler, TwoPass) and held.chunks == 0:
                for _, log_weight in chunks(first=held.weighed):
                    held.weigh(sums, log_weight)
                    saved.step()
                resampler.start(check_weights(sums).log_sum)
                generator.set_state(replay)
            for u, log_weight in chunks(first=held.chunks):
                known = double(log_weight) if held.weighed else sums.add(log_weight)
                held.put(u, log_weight, *resampler.update(known.to(choices.device)))
                saved.step()
        check_weights(sums)
        order = check_filled(resampler).finish()
        latent, log_weight = (t[order.to(t.device)] for t in (held.latent, held.log_weight))
        duplicates = 1 - len(resampler.index.unique()) / n
        diagnostics = {"sampler": "snis", "pool": self.pool, **sums.report(), "duplicates": duplicates}
        return gather_draws(tilt, latent, diagnostics, log_weight=log_weight)


class _Held(Resumable):
    """The points (n, D) and log-weights (n,) that hold the n places once all chunks have passed."""

    def __init__(self, n: int) -> None:
        self.n, self.weighed, self.chunks = n, 0, 0  # chunks of the first pass, where there are two, and of the last
        self.latent = self.log_weight = torch.empty(0)

    def weigh(self, sums: WeightSums, log_weight: Tensor) -> None:
        """Let a chunk count towards the sums alone."""
        sums.add(log_weight)
        self.weighed += 1

    def put(self, u: Tensor, log_weight: Tensor, draws: Tensor, rows: Tensor) -> None:
        """Let rows of a chunk take some places."""
        if self.chunks == 0:
            self.latent, self.log_weight = u.new_zeros((self.n, *u.shape[1:])), log_weight.new_zeros(self.n)
        draws, rows = draws.to(u.device), rows.to(u.device)
        self.latent[draws], self.log_weight[draws] = u[rows], log_weight[rows]
        self.chunks += 1
