"""Draws from a tilt whose energy needs a costly decoder: a cheap energy of the code proposes, the true one corrects."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.disk.checkpoint import Resumable, fit_checkpoint
from latentebm.disk.walk import walked
from latentebm.progress import Track, silent
from latentebm.rng import normal, uniform
from latentebm.sampling.draws import Draws, Undecoded, gather_draws
from latentebm.sampling.importance.resampling import resample
from latentebm.sampling.importance.snis import SNIS
from latentebm.sampling.importance.weights import WeightSums, check_log_weight, check_weights
from latentebm.sampling.target import Target, tilt_energy

__all__ = ["TwoStage"]

WAVES, CHUNK, HELD = 256, 65_536, 2**27  # random waves of the surrogate; codes proposed at once, and their numbers
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
FEWEST = 20  # pilot draws that a surrogate is fitted to
KNOWN_BY = 16  # pilot draws whose energies tell one tilt from another
HELD_OUT = 0.25  # share of the pilot that chooses the ridge


@dataclass(frozen=True, kw_only=True)
class TwoStage:
    r"""Importance sampling in two stages, of which only the second decodes.

    .. math:: u_i \sim p_0\, e^{-s}, \quad w_i = e^{-(E(u_i) - s(u_i))}, \quad
        \log \hat Z = \log \hat Z_s + \log \tfrac1n \textstyle\sum_i w_i

    The surrogate s is a ridge regression of E on the code, its squares and random waves, fitted to `pilot` base draws
    and kept within their energies. It costs efficiency alone, never exactness: the remaining weights correct it.

    Attributes:
        decodes: most base draws that are decoded in the second stage.
        pilot: base draws that are decoded for the surrogate.
        pool: base draws that the surrogate weighs, without decoding.
        seconds: time of the second stage, after which it draws from what has been decoded; None for no limit.
        chunk: codes decoded at once.

    References:
        Markov chain Monte Carlo Using an Approximation (Christen and Fox, 2005), of delayed acceptance, whose
        importance form this is

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), lambda z: 2 * z[:, 0])  # N(−2, 1)
        >>> two_stage = TwoStage(decodes=2000, pilot=500, pool=100_000)
        >>> draws = two_stage.draw(tilt, 1000, generator=torch.Generator().manual_seed(0))
        >>> abs(draws.x.mean().item() + 2) < 0.15, draws.diagnostics["ess"] > draws.diagnostics["ess_surrogate"]
        (True, True)
    """

    decodes: int = 5_000
    pilot: int = 1_000
    pool: int = 1_000_000
    seconds: float | None = None
    chunk: int = 256

    def __post_init__(self) -> None:
        for name in ("decodes", "pool", "chunk"):
            check_int(name, getattr(self, name))
        check_int("pilot", self.pilot, low=FEWEST)
        if self.seconds is not None:
            check_number("seconds", self.seconds, low=0, open_low=True)

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points; ``ess`` is the share of the decoded draws, ``ess_surrogate`` that of the undecoded pool.

        Raises:
            ValueError: all weights are zero, or an energy is NaN or −∞.
        """
        check_int("n", n)
        check_rng(generator)
        u = tilt.sample_base(self.pilot, generator=generator)
        known = lambda: [u, tilt_energy(tilt, u[:KNOWN_BY])]  # noqa: E731 - evaluated where there are checkpoints
        energy = torch.cat(walked(partial(tilt_energy, tilt), u.split(self.chunk), "pilot", known, track=track))
        check_log_weight(-energy)
        alive = energy.isfinite()  # beside them are draws of weight zero, of which no slope can be learned
        if int(alive.sum()) < FEWEST:
            got = f"{int(alive.sum())} of {len(u)} of finite energy"
            raise fail("pilot", f"at least {FEWEST} draws of a weight above zero", got, "pass a larger pilot")
        surrogate = _surrogate(u[alive], energy[alive], generator)
        cheap, chunk = Undecoded(tilt, surrogate), max(1, min(CHUNK, HELD // u.shape[1]))
        first = SNIS(pool=self.pool, chunk=chunk, resampling="systematic").draw(
            cheap, self.decodes, generator=generator, track=track
        )
        proposed, before = first.latent, first.diagnostics
        kept, log_weight = self._corrected(tilt, proposed, surrogate, energy, track)
        sums = WeightSums(len(kept))
        sums.add(log_weight)
        rows = resample(log_weight, n, generator=generator).to(kept.device)
        report: dict[str, Any] = check_weights(sums).report()
        report["log_z"] += before["log_z"]
        report["log_z_se"] = (report["log_z_se"] ** 2 + before["log_z_se"] ** 2) ** 0.5
        own = {"ess_surrogate": before["ess"], "decodes": self.pilot + len(kept), "pool": self.pool}
        own["duplicates"] = 1 - len(rows.unique()) / n
        exact = log_weight.to(kept) - surrogate(kept)
        return gather_draws(tilt, kept[rows], {"sampler": "two-stage", **report, **own}, log_weight=exact[rows])

    def _corrected(
        self, tilt: Target, proposed: Tensor, surrogate: Callable[[Tensor], Tensor], pilot: Tensor, track: Track
    ) -> tuple[Tensor, Tensor]:
        """The points decoded in time, and their remaining log-weights."""
        known = _Decoded()
        with fit_checkpoint("decode", [known], self, lambda: [proposed, pilot]) as saved:
            saved.restore()
            start = time.monotonic() - known.seconds
            for part in track(proposed.split(self.chunk)[len(known.log_weight) :], "decode"):
                if self.seconds is not None and known.seconds > self.seconds:
                    break  # independent draws: those so far are a fair sample
                known.log_weight.append(surrogate(part) - tilt_energy(tilt, part))
                known.seconds = time.monotonic() - start
                saved.step()
        found = torch.cat(known.log_weight)
        return proposed[: len(found)], found


class _Decoded(Resumable):
    """Remaining log-weights of the parts that are decoded, and the time that took."""

    def __init__(self) -> None:
        self.log_weight: list[Tensor] = []
        self.seconds = 0.0


def _surrogate(u: Tensor, energy: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A function of points (N, D) near their energies (N,), within the range of those it was fitted to."""
    dim, target = u.shape[1], energy.double()
    waves, phase = normal((dim, WAVES), generator, u) / dim**0.5, 6.2832 * uniform((WAVES,), generator, u)

    def basis(x: Tensor) -> Tensor:
        return torch.cat([x.new_ones(len(x), 1), x, x.square(), torch.cos(x @ waves + phase)], 1).double()

    phi, held = basis(u), int(HELD_OUT * len(u))

    def fitted(ridge: float, a: Tensor, b: Tensor) -> Tensor:
        n, few = len(a), len(a) < a.shape[1]  # long codes: the system of the pilot's draws is smaller
        gram = a @ a.T if few else a.T @ a
        gram.diagonal().add_(ridge * n)
        return a.T @ torch.linalg.solve(gram, b) if few else torch.linalg.solve(gram, a.T @ b)

    errors = [
        float((phi[:held] @ fitted(r, phi[held:], target[held:]) - target[:held]).square().mean()) for r in RIDGES
    ]
    theta = fitted(RIDGES[errors.index(min(errors))], phi, target)
    low, high = float(energy.min()), float(energy.max())
    return lambda x: (basis(x) @ theta).clamp(low, high).to(x)
