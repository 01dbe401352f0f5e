"""Pyro's Hamiltonian samplers behind the same ``draw``: the gold standard the others are held against."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, check_rng
from latentebm.disk.checkpoint import Resumable, fit_checkpoint
from latentebm.progress import Track, silent
from latentebm.rng import permutation, seeded, stream
from latentebm.sampling.diagnostics import bfmi, ess_bulk, ess_tail, max_rhat, stuck
from latentebm.sampling.draws import Draws, gather_draws
from latentebm.sampling.mcmc.state import start_on
from latentebm.sampling.target import PROBED, Target, check_gradient

__all__ = ["HMC", "NUTS"]

SHORTEST = 4  # draws of a chain that its diagnostics need


@dataclass(frozen=True, kw_only=True)
class Hamiltonian(ABC):
    r"""A Hamiltonian sampler of Pyro's, with a few long chains started at base draws; exact.

    .. math:: H(u, r) = E(u) - \log p_0(u) + \tfrac12 r^\top M^{-1} r

    The chains run one after the other. The steps of `warm_up`, thrown away, fit step size and diagonal mass matrix to
    an acceptance of `target`.
    """

    chains: int = 4
    warm_up: int = 300
    target: float = 0.8

    def __post_init__(self) -> None:
        check_int("chains", self.chains)
        check_int("warm_up", self.warm_up)
        check_number("target", self.target, low=0.01, high=0.99)

    @abstractmethod
    def kernel(self, potential: Any) -> Any:
        """Pyro's kernel over a potential of one point, ``{"u": point}``."""

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points, shared out evenly among the chains and then shuffled; those of one chain are dependent.

        Of the diagnostics, ``ess_bulk`` and ``ess_tail`` are the least over coordinates, in draws, and ``bfmi`` the
        least over chains; ``trace`` holds the paths. A chain that finds no finite start is refused, and an energy of −∞
        is a FloatingPointError. Chains that hardly move are not ``reliable``, and ``why`` says so.
        """
        chains, name = min(self.chains, check_int("n", n)), type(self).__name__.lower()
        length = max(SHORTEST, math.ceil(n / chains))
        base = tilt.sample_base(chains, generator=check_rng(generator))
        start, count = start_on(tilt, base, generator=generator), torch.tensor(n)
        starts = start.position
        check_gradient(tilt, tilt.sample_base(PROBED, generator=stream(0)))
        kernel = self.kernel(lambda site: _bounded(tilt.potential(site["u"][None])[0]))
        with seeded(generator):  # from which Pyro draws
            done = _Done()
            with fit_checkpoint(name, [done], self, lambda: [starts, start.energy, count], waits=False) as saved:
                saved.restore()
                for u in track(list(starts)[len(done.runs) :], name):
                    done.runs.append(_chain(kernel, u, length, self.warm_up))
                    saved.step()
        paths, reports, energies = zip(*done.runs, strict=True)
        trace = torch.stack(paths, dim=1)
        latent = trace.flatten(0, 1)[permutation(length * chains, generator, trace.device)[:n]]
        return gather_draws(tilt, latent, _report(name, trace, reports, torch.stack(energies, 1)), trace=trace)


@dataclass(frozen=True, kw_only=True)
class NUTS(Hamiltonian):
    """No-U-Turn sampler (Pyro's): trajectories that end where they would turn back, of at most 2^max_tree_depth steps.

    References:
        The No-U-Turn sampler (Hoffman and Gelman, 2014), https://arxiv.org/abs/1111.4246
    """

    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("max_tree_depth", self.max_tree_depth)

    def kernel(self, potential: Any) -> Any:
        """Pyro's NUTS over a potential of one point."""
        from latentebm.sampling.mcmc.pyro_kernels import RecordedNUTS  # here, since Pyro takes a second

        return RecordedNUTS(potential_fn=potential, target_accept_prob=self.target, max_tree_depth=self.max_tree_depth)


@dataclass(frozen=True, kw_only=True)
class HMC(Hamiltonian):
    """Hamiltonian Monte Carlo (Pyro's) with trajectories of fixed least length.

    The length is in standard deviations of the whitened distribution; a quarter turn, π/2, takes the normal
    distribution to an independent point.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901
    """

    trajectory: float = 1.57

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("trajectory", self.trajectory, low=0, high=1e6, open_low=True)

    def kernel(self, potential: Any) -> Any:
        """Pyro's HMC over a potential of one point."""
        from latentebm.sampling.mcmc.pyro_kernels import RecordedHMC  # here, since Pyro takes a second

        return RecordedHMC(potential_fn=potential, target_accept_prob=self.target, trajectory_length=self.trajectory)


class _Done(Resumable):
    """The chains that have run: path, report and Hamiltonians of each."""

    def __init__(self) -> None:
        self.runs: list[Any] = []


def _chain(kernel: Any, u: Tensor, length: int, warm_up: int) -> tuple[Tensor, dict[str, Any], Tensor]:
    """One chain from a point: its path (length, D), Pyro's report, and the Hamiltonian at each draw (length,)."""
    from latentebm.sampling.mcmc.pyro_kernels import MCMC

    kernel.hamiltonians = []
    run = MCMC(kernel, length, warm_up, initial_params={"u": u}, disable_progbar=True)
    run.run()
    report = run.diagnostics() | {"step_size": float(kernel.step_size)}
    return run.get_samples()["u"], report, torch.tensor(kernel.hamiltonians[-length:])


def _bounded(energy: Tensor) -> Tensor:
    """The energy of a point, unless it is −∞, which would hold the chain forever."""
    if bool(torch.isneginf(energy.detach())):
        raise FloatingPointError("potential: expected finite energies, got -inf; bound it from below")
    return energy


def _report(name: str, trace: Tensor, reports: Sequence[dict[str, Any]], hamiltonians: Tensor) -> dict[str, Any]:
    rates = [r["acceptance rate"]["chain 0"] for r in reports]
    acceptance = sum(rates) / len(rates)
    return {
        "sampler": name,
        "chains": trace.shape[1],
        "acceptance": acceptance,
        "divergences": sum(len(r["divergences"]["chain 0"]) for r in reports),
        "step_size": sum(r["step_size"] for r in reports) / len(reports),
        "rhat": max_rhat(trace),
        "ess_bulk": float(ess_bulk(trace).min()),
        "ess_tail": float(ess_tail(trace).min()),
        "bfmi": float(bfmi(hamiltonians).min()),
        **stuck(acceptance, trace),
    }
