"""Parallel tempering: chains at many temperatures that trade places, for tilts of several modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.disk.checkpoint import fit_checkpoint
from latentebm.progress import Track, silent
from latentebm.rng import uniform
from latentebm.sampling.diagnostics import max_rhat
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.importance.smc import TemperedSMC
from latentebm.sampling.mcmc.kernels import MALA, Kernel, check_kernel
from latentebm.sampling.mcmc.state import ChainState
from latentebm.sampling.target import Target, probe
from latentebm.sampling.tempered import Mover, base_energy, check_ladder

__all__ = ["ParallelTempering"]

PILOTS = 256  # particles that choose a ladder
LEAST_RENEWED = 0.95  # share of the draws that must have come from the base distribution
LEAST_ACCEPTED = 0.02


@dataclass(frozen=True, kw_only=True)
class ParallelTempering:
    r"""Chains on a ladder of temperatures from the base distribution to the tilt; neighbours swap places, exactly.

    .. math:: \log \alpha = (\beta_i - \beta_j)(E(u_i) - E(u_j))

    At :math:`\beta = 0` every place is a fresh base draw, so that what climbs the ladder has forgotten its mode. There
    is one ladder per draw; the draws are the last places at :math:`\beta = 1`.

    Arguments:
        ladder: inverse temperatures that rise from 0 to 1; None takes those that a few hundred particles of
            `TemperedSMC` choose.
        kernel: Metropolis-adjusted moves at each temperature, each with a step of its own.
        rounds: rounds of moves and swaps after the warm-up.
        n_steps: moves per round.
        warm_up: rounds in which the steps are tuned.
        target: wanted acceptance, to which the kernels' steps are tuned.
        trace: chains whose path, a point per round, is kept in ``Draws.trace``; its second half gives ``rhat``.

    Raises:
        ValueError: an argument lies outside its range, the ladder does not rise, or the kernel is unadjusted.

    References:
        Replica Monte Carlo simulation of spin glasses (Swendsen and Wang, 1986); Markov chain Monte Carlo maximum
        likelihood (Geyer, 1991)
    """

    ladder: Sequence[float] | None = None
    kernel: Kernel = field(default_factory=lambda: MALA(0.3))
    rounds: int = 200
    n_steps: int = 1
    warm_up: int = 20
    target: float = 0.574
    trace: int = 64

    def __post_init__(self) -> None:
        for name, low in (("rounds", 1), ("n_steps", 1), ("warm_up", 0), ("trace", 0)):
            check_int(name, getattr(self, name), low=low)
        check_number("target", self.target, low=0.01, high=0.99)
        if self.ladder is not None:
            check_ladder(self.ladder)
        if not check_kernel(self.kernel).adjusted:
            raise fail("kernel", "a Metropolis-adjusted one", type(self.kernel).__name__, "use MALA or PCN")

    def log_swap(self, beta: tuple[float, float], energy: tuple[Tensor, Tensor]) -> Tensor:
        """Log-ratio (N,) of a swap between two inverse temperatures whose places have these energies."""
        return (beta[0] - beta[1]) * (energy[0] - energy[1])

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted distribution, by `n` ladders.

        Returns:
            Draws whose diagnostics hold ``ladder``, ``swap_acceptance`` of each pair of neighbours, ``acceptance`` of
            the moves, ``renewed`` (share of the draws that climbed from the base distribution after the warm-up),
            ``rhat``, ``evaluations``, ``reliable`` and, in words, ``why``.

        Raises:
            ValueError: `n` is below 1, energies are not one per point, or a chain finds no finite start.
            FloatingPointError: an energy of −∞.
        """
        check_int("n", n)
        ladders = _Ladders(self, tilt, n, check_rng(generator))
        parts = [ladders, *ladders.movers, generator]
        with fit_checkpoint("tempering", parts, self, lambda: [probe(tilt), torch.tensor(ladders.beta)]) as saved:
            saved.restore()
            for t in track(range(ladders.rounds, self.warm_up + self.rounds), "tempering"):
                if t == self.warm_up:
                    ladders.begin()
                ladders.round(t)
                saved.step()
        trace = torch.stack(ladders.path) if ladders.path else None
        rhat = max_rhat(trace[len(trace) // 2 :]) if trace is not None else None
        return gather_draws(tilt, ladders.states[-1].position, {**ladders.report(), "rhat": rhat}, trace=trace)

    def rungs(self, tilt: Target, generator: torch.Generator) -> tuple[float, ...]:
        """The ladder's inverse temperatures, chosen by a pilot run where none are given."""
        if self.ladder is not None:
            return check_ladder(self.ladder)
        pilot = TemperedSMC(particles=PILOTS, kernel=self.kernel, n_steps=5, target=self.target)
        return check_ladder(pilot.draw(tilt, 1, generator=generator).diagnostics["temperatures"])


class _Ladders:
    """The states of `n` ladders, temperature by temperature; the base distribution, redrawn each round, is none."""

    def __init__(self, owner: ParallelTempering, tilt: Target, n: int, generator: torch.Generator) -> None:
        self.owner, self.tilt, self.n, self.generator = owner, tilt, n, generator
        self.beta = owner.rungs(tilt, generator)
        u = tilt.sample_base(n, generator=generator)
        base_energy(tilt, u)
        self.movers = [Mover(tilt, owner.kernel, owner.target, generator) for _ in self.beta[1:]]
        self.states: list[ChainState] = [m.start(u, b) for m, b in zip(self.movers, self.beta[1:], strict=True)]
        self.path: list[Tensor] = []
        self.rounds = 0
        self._count()

    def state_dict(self) -> dict[str, Any]:
        """What changes from round to round, but for the movers'."""
        names = ("states", "path", "rounds", "renewed", "swapped", "tried")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set it to where others were."""
        vars(self).update(state, states=[ChainState(*each) for each in state["states"]])

    def begin(self) -> None:
        """Count from here, at the steps that the warm-up has found."""
        for mover in self.movers:
            mover.wanted, mover.acceptance = None, []
        self._count()

    def _count(self) -> None:
        self.renewed = [torch.zeros(self.n, dtype=torch.bool, device=s.position.device) for s in self.states]
        self.swapped, self.tried = [0.0] * len(self.movers), [0] * len(self.movers)

    def round(self, t: int) -> None:
        """Move every chain, then offer swaps between the even or the odd pairs of neighbours."""
        steps = self.owner.n_steps if self.movers[0].wanted is None else 1
        energy = []
        for level, (mover, beta) in enumerate(zip(self.movers, self.beta[1:], strict=True)):
            for _ in range(self.owner.n_steps // steps):
                self.states[level] = mover.sweep(self.states[level], beta, steps)
            energy.append(mover.energy(self.states[level], beta))
        base = self.tilt.sample_base(self.n, generator=self.generator)
        places = [base, *(state.position for state in self.states)]
        energy = [base_energy(self.tilt, base), *energy]
        renewed = [torch.ones_like(self.renewed[0]), *self.renewed]
        for i in range(t % 2, len(self.beta) - 1, 2):
            self._swap(i, places, energy, renewed)
        self.renewed = renewed[1:]
        for level, (mover, beta) in enumerate(zip(self.movers, self.beta[1:], strict=True)):
            self.states[level] = mover.start(places[level + 1], beta)
        self.rounds += 1
        if t >= self.owner.warm_up and self.owner.trace:
            self.path.append(self.states[-1].position[: self.owner.trace])

    def _swap(self, i: int, places: list[Tensor], energy: list[Tensor], renewed: list[Tensor]) -> None:
        ratio = self.owner.log_swap((self.beta[i], self.beta[i + 1]), (energy[i], energy[i + 1]))
        swap = uniform((self.n,), self.generator, ratio).log() < ratio
        self.swapped[i] += float(swap.double().mean())
        self.tried[i] += 1
        for both in (places, energy, renewed):
            wide = swap.view(-1, *[1] * (both[i].ndim - 1))
            both[i], both[i + 1] = torch.where(wide, both[i + 1], both[i]), torch.where(wide, both[i], both[i + 1])

    def report(self) -> dict[str, Any]:
        """Plain numbers of the rounds since the count began, and whether they are to be believed."""
        swaps = [s / max(1, t) for s, t in zip(self.swapped, self.tried, strict=True)]
        accepted = [sum(m.acceptance) / max(1, len(m.acceptance)) for m in self.movers]
        renewed = float(self.renewed[-1].double().mean())
        faults = {
            f"the chains hardly move: acceptance {min(accepted):.3g} at one temperature": min(accepted)
            < LEAST_ACCEPTED,
            f"only {renewed:.0%} of the draws came from the base distribution": renewed < LEAST_RENEWED,
        }
        found = [words for words, is_so in faults.items() if is_so]
        return {
            "sampler": "pt",
            "ladder": list(self.beta),
            "swap_acceptance": swaps,
            "acceptance": accepted[-1],
            "renewed": renewed,
            "evaluations": sum(m.evaluations for m in self.movers),
            "reliable": not found,
            "why": "; ".join(found) or f"{renewed:.0%} of the draws climbed from the base distribution",
        }
