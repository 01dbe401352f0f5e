"""Pyro's Hamiltonian samplers behind the same ``draw``: the gold standard the others are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import MCMC, mcmc
from torch import Tensor

from latentebm.checks import check_int, check_number
from latentebm.progress import Track, silent
from latentebm.sampling.diagnostics import bfmi, ess_bulk, ess_tail, max_rhat
from latentebm.sampling.draws import Draws, Target, gather_draws, tilt_energy
from latentebm.sampling.mcmc.state import start_at_base

__all__ = ["HMC", "NUTS"]

SHORTEST = 4  # draws of a chain that its diagnostics need


class _Recorded:
    """Notes the Hamiltonian at each fresh momentum, which Pyro does not keep and E-BFMI needs."""

    def _sample_r(self, name: str) -> tuple[Any, Any]:
        r, unscaled = super()._sample_r(name)  # type: ignore[misc]
        hamiltonian = self._kinetic_energy(unscaled) + self._potential_energy_last  # type: ignore[attr-defined]
        self.__dict__.setdefault("hamiltonians", []).append(float(hamiltonian))
        return r, unscaled


class _RecordedNUTS(_Recorded, mcmc.NUTS):
    pass


class _RecordedHMC(_Recorded, mcmc.HMC):
    @property
    def num_steps(self) -> int:
        """Leapfrog steps that make a trajectory at least as long as asked for; Pyro's own count falls short of it."""
        return math.ceil(self.trajectory_length / self.step_size)


@dataclass(frozen=True, kw_only=True)
class NUTS:
    r"""No-U-Turn sampler (Pyro's), a few long chains started at base draws; exact.

    .. math:: H(u, r) = E(u) - \log p_0(u) + \tfrac12 r^\top M^{-1} r

    Arguments:
        chains: chains, run one after the other.
        warm_up: steps of each chain that fit step size and diagonal mass matrix and are thrown away.
        target: wanted acceptance of that fit.
        max_tree_depth: bound of the doublings of a trajectory.

    Raises:
        ValueError: an argument lies outside its range.

    References:
        The No-U-Turn sampler (Hoffman and Gelman, 2014), https://arxiv.org/abs/1111.4246

    Example:
        >>> NUTS(chains=2).warm_up
        300
    """

    chains: int = 4
    warm_up: int = 300
    target: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        check_int("chains", self.chains)
        check_int("warm_up", self.warm_up)
        check_number("target", self.target, low=0.01, high=0.99)
        check_int("max_tree_depth", self.max_tree_depth)

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted law; those of one chain depend on each other.

        Arguments:
            tilt: the target.
            n: draws, shared out evenly among the chains and then shuffled.
            generator: source of the starts, and of the seed lent to Pyro, which draws from the global random state.
            track: shows progress over the chains.

        Returns:
            Draws whose diagnostics hold ``divergences``, ``acceptance``, ``step_size``, ``rhat``, ``ess_bulk`` and
            ``ess_tail`` (least over coordinates, in draws) and ``bfmi`` (least over chains); ``trace`` holds the paths.

        Raises:
            ValueError: `n` is below 1, or a chain finds no finite start.
        """
        kernel = _RecordedNUTS(
            potential_fn=_single(tilt), target_accept_prob=self.target, max_tree_depth=self.max_tree_depth
        )
        return _run(kernel, "nuts", tilt, n, self.chains, self.warm_up, generator, track)


@dataclass(frozen=True, kw_only=True)
class HMC:
    r"""Hamiltonian Monte Carlo (Pyro's) with trajectories of fixed length; exact.

    .. math:: H(u, r) = E(u) - \log p_0(u) + \tfrac12 r^\top M^{-1} r

    Arguments:
        chains: chains, run one after the other.
        warm_up: steps of each chain that fit step size and diagonal mass matrix and are thrown away.
        target: wanted acceptance of that fit.
        trajectory: least length of a trajectory, in standard deviations of the whitened law; a quarter turn, π/2, takes
            the normal law to an independent point.

    Raises:
        ValueError: an argument lies outside its range.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901

    Example:
        >>> HMC().trajectory
        1.57
    """

    chains: int = 4
    warm_up: int = 300
    target: float = 0.8
    trajectory: float = 1.57

    def __post_init__(self) -> None:
        check_int("chains", self.chains)
        check_int("warm_up", self.warm_up)
        check_number("target", self.target, low=0.01, high=0.99)
        check_number("trajectory", self.trajectory, low=0, high=1e6, open_low=True)

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted law; those of one chain depend on each other.

        Arguments:
            tilt: the target.
            n: draws, shared out evenly among the chains and then shuffled.
            generator: source of the starts, and of the seed lent to Pyro, which draws from the global random state.
            track: shows progress over the chains.

        Returns:
            Draws with the diagnostics of :class:`NUTS`.

        Raises:
            ValueError: `n` is below 1, or a chain finds no finite start.
        """
        kernel = _RecordedHMC(
            potential_fn=_single(tilt), target_accept_prob=self.target, trajectory_length=self.trajectory
        )
        return _run(kernel, "hmc", tilt, n, self.chains, self.warm_up, generator, track)


def _single(tilt: Target) -> Any:
    return lambda site: tilt.potential(site["u"][None])[0]


def _run(
    kernel: Any,
    name: str,
    tilt: Target,
    n: int,
    chains: int,
    warm_up: int,
    generator: torch.Generator,
    track: Track,
) -> Draws:
    check_int("n", n)
    chains = min(chains, n)
    length = max(SHORTEST, math.ceil(n / chains))

    starts = start_at_base(tilt, chains, generator=generator).position
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    paths, reports, energies = [], [], []
    # Pyro draws from the global state: lend it a seed of our generator and give the state back.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for u in track(list(starts), name):
            kernel.hamiltonians = []
            run = MCMC(kernel, length, warm_up, initial_params={"u": u}, disable_progbar=True)
            run.run()
            paths.append(run.get_samples()["u"])
            reports.append(run.diagnostics() | {"step_size": float(kernel.step_size)})
            energies.append(torch.tensor(kernel.hamiltonians[-length:]))
    trace = torch.stack(paths, dim=1)
    latent = trace.flatten(0, 1)[torch.randperm(length * chains, generator=generator, device=generator.device)[:n]]
    with torch.no_grad():
        draws = gather_draws(
            tilt, latent, -tilt_energy(tilt, latent), _report(name, trace, reports, torch.stack(energies, 1))
        )
    draws.trace = trace
    return draws


def _report(name: str, trace: Tensor, reports: list[dict[str, Any]], hamiltonians: Tensor) -> dict[str, Any]:
    rates = [r["acceptance rate"]["chain 0"] for r in reports]
    return {
        "sampler": name,
        "chains": trace.shape[1],
        "acceptance": sum(rates) / len(rates),
        "divergences": sum(len(r["divergences"]["chain 0"]) for r in reports),
        "step_size": sum(r["step_size"] for r in reports) / len(reports),
        "rhat": max_rhat(trace),
        "ess_bulk": float(ess_bulk(trace).min()),
        "ess_tail": float(ess_tail(trace).min()),
        "bfmi": float(bfmi(hamiltonians).min()),
    }
