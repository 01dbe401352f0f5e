"""Rejection sampling and iterated sampling importance resampling from the base distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng, fail
from latentebm.disk.checkpoint import Resumable, fit_checkpoint
from latentebm.progress import Track, silent
from latentebm.rng import uniform
from latentebm.sampling.diagnostics import stuck
from latentebm.sampling.draws import Draws, base_chunks, gather_draws
from latentebm.sampling.importance.resampling import pick_columns
from latentebm.sampling.importance.weights import BASE_DRAWS, WeightSums, check_log_weight, check_weights
from latentebm.sampling.target import Target, probe, tilt_energy

__all__ = ["ISIR", "Rejection"]


@dataclass(frozen=True, kw_only=True)
class Rejection:
    r"""Rejection from the base distribution under an empirical bound of the weights.

    .. math:: u \sim p_0 \text{ kept with probability } e^{-E(u) - M}

    The bound :math:`M` is the largest log-weight met so far, at first by `pilot` draws that are thrown away. When a
    larger one comes, the draws kept until then are thinned by :math:`e^{M - M'}`, which makes them draws under the new
    bound: they are exact up to weights above all that were met.

    References:
        Empirical supremum rejection sampling (Caffo, Booth and Davis, 2002)

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0), lambda e: 0.3 * (e > 0))
        >>> bool((Rejection().draw(tilt, 9, generator=torch.Generator().manual_seed(0)).log_weight > -0.4).all())
        True
    """

    pilot: int = 100_000
    chunk: int = BASE_DRAWS
    max_proposals: int = 100_000_000

    def __post_init__(self) -> None:
        for name in ("pilot", "chunk", "max_proposals"):
            check_int(name, getattr(self, name))

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` independent points; of the diagnostics, ``bound_raised`` counts how often the bound was too low.

        Raises:
            ValueError: all weights are zero, an energy is NaN or −∞, or `max_proposals` did not give `n` draws.
        """
        check_int("n", n)
        check_rng(generator)
        sums, kept = WeightSums(self.max_proposals), _Accepted()
        with fit_checkpoint("proposals", [kept, sums, generator], self, lambda: [probe(tilt)]) as saved:
            if not saved.restore():
                kept.bound = self._pilot_bound(tilt, generator)
            chunks = math.ceil(self.max_proposals / self.chunk) if kept.count < n else 0
            for _ in track(range(kept.chunks, chunks), "proposals"):
                u = tilt.sample_base(self.chunk, generator=generator)
                log_weight = -tilt_energy(tilt, u)
                kept.take(u, log_weight, float(sums.add(log_weight).max()), generator)
                saved.step()
                if kept.count >= n:
                    break
        if kept.count < n:
            got = f"{kept.count} kept of {sums.count}"
            raise fail("max_proposals", f"enough for {n} draws", got, "use SNIS or Langevin")
        latent, log_weight = (torch.cat(both)[:n] for both in zip(*kept.pairs, strict=True))
        diagnostics = {
            "sampler": "rejection",
            "proposals": sums.count,
            "acceptance": kept.count / sums.count,
            "log_bound": kept.bound,
            "bound_raised": kept.raised,
            "log_z": sums.log_z,
            "log_z_se": sums.log_z_se,
        }
        return gather_draws(tilt, latent, diagnostics, log_weight=log_weight)

    def _pilot_bound(self, tilt: Target, generator: torch.Generator) -> float:
        sums = WeightSums(self.pilot)
        pilots = base_chunks(tilt, self.pilot, self.chunk, generator=generator)
        bound = max(float(sums.add(log_weight).max()) for _, log_weight in pilots)
        check_weights(sums)
        return bound


class _Accepted(Resumable):
    """The points and log-weights kept so far, chunk by chunk, and the bound under which they are draws."""

    def __init__(self) -> None:
        self.bound, self.raised, self.chunks = -math.inf, 0, 0
        self.pairs: list[tuple[Tensor, Tensor]] = []

    @property
    def count(self) -> int:
        """How many are kept."""
        return sum(len(log_weight) for _, log_weight in self.pairs)

    def take(self, u: Tensor, log_weight: Tensor, top: float, generator: torch.Generator) -> None:
        """Keep some of a chunk, whose largest log-weight may raise the bound."""
        if top > self.bound:
            self.pairs = [_thin(*pair, self.bound - top, generator) for pair in self.pairs]
            self.bound, self.raised = top, self.raised + 1
        self.pairs.append(_thin(u, log_weight, log_weight - self.bound, generator))
        self.chunks += 1


@dataclass(frozen=True, kw_only=True)
class ISIR:
    r"""Iterated sampling importance resampling: each chain picks among its state and fresh base draws by weight.

    .. math:: u_{t+1} = v_i \text{ with probability } w(v_i) / \textstyle\sum_j w(v_j), \quad
        v_0 = u_t, \; v_1, \dots, v_{N-1} \sim p_0

    The tilted distribution is invariant for any number of proposals; where the weights are bounded by :math:`w^*` the
    distance to it falls by at least :math:`1 - (N - 1) / (2 w^* / Z + N - 2)` per step.

    A chain makes `n_steps` steps of N − 1 `proposals`; at most `chunk` base draws are held at once.

    References:
        Uniform ergodicity of the iterated conditional SMC and geometric ergodicity of particle Gibbs samplers (Andrieu,
        Lee and Vihola, 2018), https://arxiv.org/abs/1312.6432
    """

    proposals: int = 31
    n_steps: int = 30
    chunk: int = BASE_DRAWS

    def __post_init__(self) -> None:
        for name in ("proposals", "n_steps", "chunk"):
            check_int(name, getattr(self, name))

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points by `n` chains; ``acceptance`` among the diagnostics is the share of steps that moved.

        Raises:
            ValueError: an energy is NaN or −∞, or a chain met weights of zero only.
        """
        check_int("n", n)
        check_rng(generator)
        u = tilt.sample_base(n, generator=generator)
        log_weight = check_log_weight(-tilt_energy(tilt, u))
        done, rows = _Steps(), max(1, self.chunk // self.proposals)
        with fit_checkpoint("i-SIR", [done, u, log_weight, generator], self, lambda: [probe(tilt)]) as saved:
            saved.restore()
            for _ in track(range(done.steps, self.n_steps), "i-SIR"):
                for part in (slice(start, start + rows) for start in range(0, n, rows)):
                    done.moved += self._step(tilt, u[part], log_weight[part], generator)
                done.steps += 1
                saved.step()
        if lost := int(torch.isneginf(log_weight).sum()):
            got = f"{lost} of {n} chains at weight zero after {self.n_steps} steps"
            raise fail("log_weight", "a weight above zero in every chain", got, "take more steps or proposals")
        acceptance = done.moved / (n * self.n_steps)
        diagnostics = {"sampler": "isir", "steps": self.n_steps, "acceptance": acceptance, **stuck(acceptance)}
        return gather_draws(tilt, u, diagnostics, log_weight=log_weight)

    def _step(self, tilt: Target, u: Tensor, log_weight: Tensor, generator: torch.Generator) -> int:
        fresh = tilt.sample_base(len(u) * self.proposals, generator=generator)
        weights = check_log_weight(-tilt_energy(tilt, fresh)).view(len(u), self.proposals)
        choice = pick_columns(torch.cat([log_weight[:, None], weights], dim=1), generator)
        rows = (choice > 0).nonzero()[:, 0]
        picked = rows * self.proposals + choice[rows] - 1
        u[rows], log_weight[rows] = fresh[picked], weights.flatten()[picked]
        return len(rows)


class _Steps(Resumable):
    """Steps that all chains have made, and the moves among them."""

    def __init__(self) -> None:
        self.steps = self.moved = 0


def _thin(u: Tensor, log_weight: Tensor, log_keep: Tensor | float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    chance = uniform((len(log_weight),), generator, log_weight)
    keep = chance.log() < torch.as_tensor(log_keep, dtype=log_weight.dtype, device=log_weight.device)
    return u[keep], log_weight[keep]
