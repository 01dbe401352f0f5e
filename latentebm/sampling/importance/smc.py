"""Tempered sequential Monte Carlo: particles carried from the base distribution to the tilt where weights collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.progress import Track, silent
from latentebm.rng import permutation, uniform
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.importance.weights import WeightSums, check_weights
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.target import Target
from latentebm.sampling.tempered import Mover, base_energy

__all__ = ["TemperedSMC", "ordered_systematic"]

HALVINGS = 60  # of the bracket of the next temperature: below the resolution of double precision
MOST_STAGES = 1_000
HELD = 2**23  # numbers of places held for resampling, or one place per particle
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
        u = tilt.sample_base(size, generator=generator)
        stages, energy = [_Stage(0.0, 0.0, 0.0, 1.0, 1.0)], base_energy(tilt, u)
        line = energy.new_zeros(size, dtype=torch.float64)
        for _ in track(range(MOST_STAGES), "temperatures"):
            u, energy, line, stage = self._stage(mover, u, energy, line, stages[-1].beta)
            stages.append(stage)
            if stage.beta == 1.0:
                break
        done = len(mover.acceptance)
        u = self._settle(mover, u) if stages[-1].beta == 1.0 else u
        moved = _mean(mover.acceptance[done:])
        fresh = size * (self.n_steps + 1)
        diagnostics = {**_report(stages, moved), "evaluations": fresh + mover.evaluations}
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

    def _stage(
        self, mover: Mover, u: Tensor, energy: Tensor, line: Tensor, beta: float
    ) -> tuple[Tensor, Tensor, Tensor, _Stage]:
        """Choose the next temperature, move the particles at the present one, and resample them for the next.

        Each particle's `line` is the sum of its ancestors' weights' deviations from their mean: where a particle's
        weight takes after its line's, log Z is known less well than if all temperatures were independent.
        """
        after, first = self.next_temperature(energy, beta), len(mover.acceptance)
        kept = _Places(self.n_steps + 1, u)
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
        sums = WeightSums(len(u))
        weights = sums.add(kept.log_mean())
        check_weights(sums)
        rows, u, energy = kept.resampled(generator=mover.generator)
        deviation = (weights.to(line) - sums.log_z).exp() - 1
        shared = max(0.0, 2 * float(((line - line.mean()) * deviation).mean()) / len(u))
        se = math.hypot(sums.log_z_se, math.sqrt(shared))
        stage = _Stage(after, sums.log_z, se, sums.ess, _mean(mover.acceptance[first:]))
        return u, energy, (line + deviation)[rows], stage

    def _settle(self, mover: Mover, u: Tensor) -> Tensor:
        """Moves at the tilt itself, which part the copies of a particle."""
        state = mover.start(u, 1.0)
        for _ in range(self.n_steps):
            state = mover.sweep(state, 1.0)
        return state.position


class _Places:
    """The places of each particle in groups as many as memory allows; of each group one, drawn by weight, is held."""

    def __init__(self, size: int, u: Tensor) -> None:
        self.size, self.seen = size, 0
        self.groups = min(size, max(1, HELD // u.numel()))
        self.u = u.new_empty((self.groups, *u.shape))
        self.energy = u.new_full((self.groups, len(u)), math.inf, dtype=torch.float64)
        self.log_sum = torch.full_like(self.energy, -math.inf)

    def take(self, u: Tensor, energy: Tensor, log_weight: Tensor, generator: torch.Generator) -> None:
        """Take a further place of each particle."""
        group, log_weight = self.seen * self.groups // self.size, log_weight.to(self.log_sum)
        first = group != (self.seen - 1) * self.groups // self.size
        self.seen += 1
        self.log_sum[group] = torch.logaddexp(self.log_sum[group], log_weight)
        taken = uniform((len(u),), generator, log_weight).log() < log_weight - self.log_sum[group]
        taken = torch.ones_like(taken) if first else taken
        self.u[group, taken], self.energy[group, taken] = u[taken], energy[taken].double()

    def log_mean(self) -> Tensor:
        """Log of each particle's mean weight over its places, (N,)."""
        return self.log_sum.logsumexp(0) - math.log(self.size)

    def resampled(self, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The particles that went on (N,), and the places (N, D) and energies (N,) at which they did."""
        n = self.u.shape[1]
        rows = ordered_systematic(self.log_sum.flatten(), self.u.flatten(0, 1), n, generator=generator)
        return rows % n, self.u.flatten(0, 1)[rows], self.energy.flatten()[rows]


def ordered_systematic(log_weight: Tensor, u: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Rows (n,) drawn systematically by log-weights (K,), points (K, D) in order of their first principal component.

    Example:
        >>> u = torch.tensor([[0.0], [2.0], [1.0], [3.0]])
        >>> rows = ordered_systematic(torch.tensor([0.0, 0.0, -torch.inf, 0.0]), u, 3, generator=torch.Generator())
        >>> rows.sort().values.tolist()
        [0, 1, 3]
    """
    order = _first_component(u, generator).argsort()
    cumulated = log_weight.double().to(u.device).softmax(0)[order].cumsum(0)
    grid = (torch.arange(n, device=u.device, dtype=torch.float64) + uniform((1,), generator, cumulated)) / n
    return order[torch.searchsorted(cumulated, grid * cumulated[-1], right=True).clamp_(max=len(u) - 1)]


def _first_component(u: Tensor, generator: torch.Generator) -> Tensor:
    """Scores (N,) of points along about their direction of most variance, by a few power iterations."""
    centred = u.flatten(1).double()
    centred = centred - centred.mean(0)
    direction = uniform((centred.shape[1],), generator, centred) - 0.5
    for _ in range(8):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
    return centred @ direction


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
