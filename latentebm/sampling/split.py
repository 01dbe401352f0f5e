"""Draws by several processes: the pool of SNIS and the chains of Langevin are split, and merged exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from latentebm import processes
from latentebm.checks import check_int
from latentebm.progress import Track, silent
from latentebm.rng import child
from latentebm.sampling.diagnostics import max_rhat
from latentebm.sampling.draws import Draws, Sampler, gather_draws
from latentebm.sampling.importance.pools import owners, pool_part
from latentebm.sampling.importance.snis import SNIS
from latentebm.sampling.importance.weights import WeightSums, check_weights
from latentebm.sampling.mcmc.langevin import Langevin
from latentebm.sampling.target import Target

__all__ = ["draw_split"]


def draw_split(sampler: Sampler, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
    """Draw `n` points by all processes of the group together; every one of them gets all draws.

    The pool of SNIS (multinomial) and the chains of Langevin are split, each process's part drawn from a stream of its
    own: the distribution is that of one process. Any other sampler runs in rank 0. Alone, a process just draws.

    Arguments:
        sampler: the same in every process, as are the other arguments.
        tilt: what is drawn from.
        n: draws.
        generator: in the same state in every process.
        track: shows progress.

    Raises:
        ValueError: as the sampler's own `draw`, in every process.
        LostRankError: another process has ended or hangs.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))
        >>> len(draw_split(SNIS(pool=1000), tilt, 5, generator=torch.Generator().manual_seed(0)))
        5
    """
    if processes.world() == 1:
        return sampler.draw(tilt, n, generator=generator, track=track)
    check_int("n", n)
    if isinstance(sampler, SNIS) and sampler.resampling == "multinomial":
        return _split_pool(sampler, tilt, n, generator, track)
    if isinstance(sampler, Langevin) and n >= processes.world():
        return _split_chains(sampler, tilt, n, generator, track)
    drawn = processes.on_main(lambda: _on_cpu(sampler.draw(tilt, n, generator=generator, track=track)))
    generator.set_state(processes.from_main(generator.get_state()))
    return processes.from_main(drawn)  # type: ignore[return-value]


def _split_pool(sampler: SNIS, tilt: Target, n: int, generator: torch.Generator, track: Track) -> Draws:
    """Each process draws a part of the pool; each of the n draws is then taken from one of them."""
    own, shared = processes.own_stream(generator), child(generator)
    rows = processes.share(sampler.pool)
    form: dict[str, Any] = {"pool": sampler.pool, "chunk": sampler.chunk}
    part = processes.together(lambda: pool_part(tilt, n, rows, generator=own, track=track, **form))
    log_sums = processes.gather(part.sums.log_sum)
    sums = check_weights(processes.tree(part.sums, WeightSums.merge))
    owner = owners(log_sums, n, shared)
    mine = (owner == processes.rank()).nonzero()[:, 0]
    like = processes.gather((part.latent.shape[1:], part.latent.dtype))[0]  # a process without rows knows neither
    latent, log_weight, index = part.rows(mine)
    if not len(rows):
        latent, log_weight = (torch.zeros(0, *shape, dtype=like[1]) for shape in (like[0], ()))
    kept = _decoded(tilt, latent, log_weight)
    x, latent, log_weight, index = (processes.gather_rows(t) for t in (kept.x, latent, log_weight, index))
    order = torch.argsort(owner, stable=True).argsort()  # rows came process by process
    x, latent, log_weight = (t[order.to(t.device)] for t in (x, latent, log_weight))
    duplicates = 1 - len(index.unique()) / n
    diagnostics = {"sampler": "snis", "pool": sampler.pool, **sums.report(), "duplicates": duplicates}
    return Draws(x, latent, log_weight, diagnostics)


def _decoded(tilt: Target, latent: Tensor, log_weight: Tensor) -> Draws:
    """Data of some points; of none, data of the same shape as others'."""
    if len(latent):
        return processes.together(lambda: gather_draws(tilt, latent, {}, log_weight=log_weight))
    found = processes.together(lambda: gather_draws(tilt, latent.new_zeros(1, *latent.shape[1:]), {}))
    return replace(found, x=found.x[:0])


def _split_chains(sampler: Langevin, tilt: Target, n: int, generator: torch.Generator, track: Track) -> Draws:
    """Each process runs a part of the chains."""
    own, rows = processes.own_stream(generator), processes.share(n)
    traced = replace(sampler, trace=len(processes.share(min(sampler.trace, n))))
    part = processes.together(lambda: traced.draw(tilt, len(rows), generator=own, track=track))
    x, latent, log_weight = (processes.gather_rows(t) for t in (part.x, part.latent, part.log_weight))
    trace = None
    if part.trace is not None:
        trace = processes.gather_rows(part.trace.transpose(0, 1)).transpose(0, 1)
    report = _merged(processes.gather((len(rows), part.diagnostics)))
    report["rhat"] = report["rhat"] if trace is None else max_rhat(trace[len(trace) // 2 :])
    return Draws(x, latent, log_weight, report, trace)


def _merged(reports: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Diagnostics of all chains: means, weighted by the number of chains, and the sum of proposals taken back."""
    total, merged = sum(count for count, _ in reports), dict(reports[0][1])
    for name, value in merged.items():
        if isinstance(value, float) and all(report[name] is not None for _, report in reports):
            merged[name] = sum(count * report[name] for count, report in reports) / total
    merged["reverted"] = sum(report["reverted"] for _, report in reports)
    for _, report in reports:
        if report.get("reliable") is False:
            merged |= {"reliable": False, "why": report["why"]}
    return merged


def _on_cpu(draws: Draws) -> Draws:
    """Draws that any process can take."""
    trace = None if draws.trace is None else draws.trace.cpu()
    return replace(draws, x=draws.x.cpu(), latent=draws.latent.cpu(), log_weight=draws.log_weight.cpu(), trace=trace)
