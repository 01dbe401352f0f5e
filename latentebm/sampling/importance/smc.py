"""Tempered sequential Monte Carlo: particles carried from the base distribution to the tilt where weights collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.disk.checkpoint import Resumable, fit_checkpoint
from latentebm.progress import Track, silent
from latentebm.rng import permutation
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.importance.places import Places
from latentebm.sampling.importance.weights import WeightSums, check_weights
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.target import Target, probe
from latentebm.sampling.tempered import Mover, base_energy

__all__ = ["TemperedSMC"]

HALVINGS = 60  # of the bracket of the next temperature: below the resolution of double precision
MOST_STAGES = 1_000
LEAST_ACCEPTED = 0.02  # of a stage's moves, below which its particles are stuck
LEAST_STAGE_ESS = 0.1  # of a stage's weights, below which few particles carry all
LARGEST_SE = 1.0  # of log Z, nats


class _Stage(NamedTuple):
    """One temperature: where it ended, its share of log Z, and how its particles went."""

    beta: float
    log_z: float
    log_z_se: float
    ess: float
    acceptance: float


class _Particles(Resumable):
    """Particles, their energies and lines, and the temperatures that they have passed.

    Each particle's line is the sum of its ancestors' weights' deviations from their mean: where a particle's weight
    takes after its line's, log Z is known less well than if all temperatures were independent.
    """

    def __init__(self) -> None:
        self.stages = [_Stage(0.0, 0.0, 0.0, 1.0, 1.0)]
        self.u = self.energy = self.line = torch.empty(0)

    @property
    def beta(self) -> float:
        """The inverse temperature at which they are."""
        return self.stages[-1].beta

    def begin(self, tilt: Target, size: int, generator: torch.Generator) -> None:
        """Base draws."""
        self.u = tilt.sample_base(size, generator=generator)
        self.energy = base_energy(tilt, self.u)
        self.line = self.energy.new_zeros(size, dtype=torch.float64)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set it to what was known."""
        super().load_state_dict({**state, "stages": [_Stage(*stage) for stage in state["stages"]]})

    def resample(self, kept: Places, after: float, acceptance: float, generator: torch.Generator) -> None:
        """Take on places by their weights, of which the next temperature is the one after."""
        sums = WeightSums(len(self.u))
        weights = sums.add(kept.log_mean())
        check_weights(sums)
        rows, self.u, self.energy = kept.resampled(generator=generator)
        deviation = (weights.to(self.line) - sums.log_z).exp() - 1
        shared = max(0.0, 2 * float(((self.line - self.line.mean()) * deviation).mean()) / len(self.u))
        se = math.hypot(sums.log_z_se, math.sqrt(shared))
        self.line = (self.line + deviation)[rows]
        self.stages.append(_Stage(after, sums.log_z, se, sums.ess, acceptance))


@dataclass(frozen=True, kw_only=True)
class TemperedSMC:
    r"""Sequential Monte Carlo from the base distribution to the tilt, by temperatures that the particles choose.

    .. math:: p_\beta \propto e^{-\beta E} p_0, \quad \beta: 0 \to 1, \quad
        \log \hat Z = \sum_t \log \frac1N \sum_i \bar w_{ti}, \quad
        \bar w_{ti} = \frac1K \sum_k e^{-(\beta_{t+1} - \beta_t) E(u_{tik})}

    The next temperature is where the weights' ESS falls to a share of the particles. Each particle then takes K moves
    of the kernel at the present temperature, and the weights of all its places count. Places are resampled
    systematically in the order of their first principal component, which keeps the modes' masses; particles then weigh
    alike again. In high dimension neighbouring places share one seat, so that memory does not grow with the steps.

    Arguments:
        particles: how many, N; more where more draws are asked for.
        kernel: Metropolis-adjusted moves. MALA needs a gradient; PCN does not, and does not slow down with dimension.
        n_steps: moves of each particle per temperature, K.
        ess: share of the particles at which the next temperature is set.
        target: wanted acceptance, to which the kernel's step is tuned.

    Raises:
        ValueError: an argument lies outside its range, or the kernel is unadjusted.

    References:
        Sequential Monte Carlo samplers (Del Moral, Doucet and Jasra, 2006); Waste-free sequential Monte Carlo (Dau and
        Chopin, 2022), https://arxiv.org/abs/2011.02328, for the use of all moves; Sequential quasi Monte Carlo (Gerber
        and Chopin, 2015) for resampling in order

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0), lambda e: 6 * e)
        >>> draws = TemperedSMC().draw(tilt, 1000, generator=torch.Generator().manual_seed(0))  # N(−6, 1), log Z = 18
        >>> abs(draws.x.mean().item() + 6) < 0.15, abs(draws.diagnostics["log_z"] - 18) < 0.2
        (True, True)
    """

    particles: int = 1_000
    kernel: Kernel = field(default_factory=lambda: MALA(0.3))
    n_steps: int = 10
    ess: float = 0.5
    target: float = 0.574

    def __post_init__(self) -> None:
        check_int("particles", self.particles)
        check_int("n_steps", self.n_steps)
        check_number("ess", self.ess, low=0.05, high=0.95)
        check_number("target", self.target, low=0.01, high=0.99)
        if not check_kernel(self.kernel).adjusted:
            raise fail("kernel", "a Metropolis-adjusted one", type(self.kernel).__name__, "use MALA or PCN")

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted distribution.

        Returns:
            Draws whose diagnostics hold ``log_z`` and ``log_z_se`` in nats, ``temperatures`` (inverse, from 0 to 1),
            ``stage_ess`` (of the particles' weights) and ``stage_acceptance`` per temperature, ``evaluations`` of the
            energy, ``reliable`` and, in words, ``why``.

        Raises:
            ValueError: `n` is below 1, energies are not one per point, an energy is NaN, or all weights are zero.
            FloatingPointError: an energy of −∞ met by a move.
        """
        size = max(self.particles, check_int("n", n))
        mover = Mover(tilt, self.kernel, self.target, check_rng(generator))
        now = _Particles()
        with fit_checkpoint(
            "temperatures", [now, mover, generator], self, lambda: [probe(tilt), torch.tensor(size)]
        ) as saved:
            if not saved.restore():
                now.begin(tilt, size, generator)
            for _ in track(range(len(now.stages) - 1, MOST_STAGES if now.beta < 1 else 0), "temperatures"):
                self._stage(mover, now)
                saved.step()
                if now.beta == 1.0:
                    break
        done = len(mover.acceptance)
        u = self._settle(mover, now.u) if now.beta == 1.0 else now.u
        moved = _mean(mover.acceptance[done:])
        fresh = size * (self.n_steps + 1)
        diagnostics = {**_report(now.stages, moved), "evaluations": fresh + mover.evaluations}
        return gather_draws(tilt, u[permutation(size, generator, u.device)[:n]], diagnostics)

    def log_weight(self, energy: Tensor, beta: float, after: float) -> Tensor:
        """Log-weights (N,) from one inverse temperature to the next, of particles that weigh alike."""
        return -(after - beta) * energy

    def next_temperature(self, energy: Tensor, beta: float) -> float:
        """Inverse temperature at which the weights of particles of energies (N,) have the wanted ESS, at most 1."""
        energy = energy.double()
        alive = energy.isfinite()  # particles without weight are lost at any temperature
        if not bool(alive.any()):
            return 1.0
        energy, low, high = energy[alive], 0.0, 1.0 - beta
        if _ess(-high * energy) >= self.ess:
            return 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if _ess(-middle * energy) >= self.ess else (low, middle)
        return beta + max(low, torch.finfo(torch.float64).eps)

    def _stage(self, mover: Mover, now: _Particles) -> None:
        """Choose the next temperature, move the particles at the present one, and resample them for the next."""
        u, energy, beta = now.u, now.energy, now.beta
        after, first = self.next_temperature(energy, beta), len(mover.acceptance)
        kept = Places(self.n_steps + 1, u)
        kept.take(u, energy, self.log_weight(energy, beta, after), mover.generator)
        state = mover.start(u, beta) if beta else None
        for _ in range(self.n_steps):
            if state is None:  # at the base distribution, draws are to be had fresh
                u = mover.target.sample_base(len(u), generator=mover.generator)
                energy = base_energy(mover.target, u)
            else:
                state = mover.sweep(state, beta)
                u, energy = state.position, mover.energy(state, beta)
            kept.take(u, energy, self.log_weight(energy, beta, after), mover.generator)
        now.resample(kept, after, _mean(mover.acceptance[first:]), mover.generator)

    def _settle(self, mover: Mover, u: Tensor) -> Tensor:
        """Moves at the tilt itself, which part the copies of a particle."""
        state = mover.start(u, 1.0)
        for _ in range(self.n_steps):
            state = mover.sweep(state, 1.0)
        return state.position


def _ess(log_weight: Tensor) -> float:
    return float((2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()) / len(log_weight)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 1.0


def _report(stages: list[_Stage], moved: float) -> dict[str, Any]:
    """Plain numbers of all temperatures, and whether they are to be believed."""
    se = math.sqrt(sum(s.log_z_se**2 for s in stages))
    accepted = [s.acceptance for s in stages[2:]] + [moved]  # the first stage draws afresh
    report = {
        "sampler": "smc",
        "temperatures": [s.beta for s in stages],
        "stage_ess": [s.ess for s in stages[1:]],
        "stage_acceptance": accepted,
        "log_z": sum(s.log_z for s in stages),
        "log_z_se": se,
        "acceptance": _mean(accepted),
    }
    least = min(s.ess for s in stages)
    faults = {
        f"the ladder ended at {stages[-1].beta:.3g} of 1 after {MOST_STAGES} temperatures": stages[-1].beta < 1,
        f"the particles hardly move: acceptance {min(accepted):.3g} at one temperature": min(accepted) < LEAST_ACCEPTED,
        "few particles carry a temperature's weight": least < LEAST_STAGE_ESS,
        f"log Z is known to ±{se:.2g} nats only": se > LARGEST_SE,
    }
    found = [words for words, is_so in faults.items() if is_so]
    healthy = f"{len(stages) - 1} temperatures, log Z known to ±{se:.2g} nats"
    return {**report, "reliable": not found, "why": "; ".join(found) or healthy}
