"""The sampler that the importance weights call for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from latentebm.checks import check_int
from latentebm.progress import Track, silent
from latentebm.sampling.draws import Draws
from latentebm.sampling.importance.rejection import ISIR
from latentebm.sampling.importance.smc import TemperedSMC
from latentebm.sampling.importance.snis import SNIS
from latentebm.sampling.mcmc.kernels import MALA, Kernel, RandomWalk
from latentebm.sampling.mcmc.pcn import PCN, is_normal
from latentebm.sampling.target import Target, check_gradient

__all__ = ["Auto"]

FAR = 0.02  # total variation from the tilt at which i-SIR chains count as arrived
CHECKED = 256  # base draws by which a kernel is chosen


@dataclass(frozen=True, kw_only=True)
class Auto:
    """SNIS where its weights are healthy, else i-SIR where its chains surely arrive, else tempered particles.

    A chain of i-SIR is within :math:`(1 - (N - 1) / (2 w^* / Z + N - 2))^t` of the tilt after t steps; it is taken if
    that is at most 2 %, with the largest weight met for :math:`w^*`, and if the weights' tail is light.

    Arguments:
        pool: base draws of SNIS, which also judge the weights.
        particles: of `TemperedSMC`, moved by MALA, or by PCN where the energy is piecewise constant.
        proposals: fresh base draws per step of i-SIR.
        n_steps: steps of i-SIR.

    Raises:
        ValueError: an argument lies below 1.
    """

    pool: int = 200_000
    particles: int = 1_000
    proposals: int = 127
    n_steps: int = 40

    def __post_init__(self) -> None:
        for name in ("pool", "particles", "proposals", "n_steps"):
            check_int(name, getattr(self, name))

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted distribution.

        Returns:
            Draws of the sampler chosen, named in ``sampler``; their diagnostics hold its own, those of the weights
            (``ess``, ``pareto_k``, ``pareto_k_threshold``), ``reliable``, and in words ``why`` it was chosen.

        Raises:
            ValueError: as the sampler chosen.
        """
        draws = SNIS(pool=self.pool).draw(tilt, n, generator=generator, track=track)
        weights = draws.diagnostics
        if weights["reliable"]:
            weights["why"] = f"importance weights are healthy: {_words(weights)}"
            return draws
        largest = float(draws.log_weight.max()) - weights["log_z"]
        left = self._left(largest)
        k = weights["pareto_k"]
        if left <= FAR and (k is None or k < weights["pareto_k_threshold"]):  # None: no tail
            chains = ISIR(proposals=self.proposals, n_steps=self.n_steps)
            own, reason = {"reliable": True}, f"i-SIR chains arrive to within {left:.1%} of total variation"
        else:
            chains = TemperedSMC(particles=self.particles, kernel=self._kernel(tilt, generator))  # type: ignore[assignment]
            own, reason = {}, "tempered particles instead"
        draws = chains.draw(tilt, n, generator=generator, track=track)
        kept = {name: weights[name] for name in ("ess", "pareto_k", "pareto_k_threshold", "log_z", "log_z_se")}
        found: dict[str, Any] = {**kept, **draws.diagnostics, **own}
        said = f"; {found['why']}" if "why" in found else ""
        found["why"] = f"importance weights collapsed ({_words(weights)}): {reason}{said}"
        draws.diagnostics = found
        return draws

    def _left(self, log_largest: float) -> float:
        """Bound of the total variation between an i-SIR chain and the tilt."""
        rate = self.proposals / (2 * math.exp(min(log_largest, 700.0)) + self.proposals - 1)
        return (1 - min(rate, 1.0)) ** self.n_steps

    def _kernel(self, tilt: Target, generator: torch.Generator) -> Kernel:
        """MALA where the energy has a gradient, else PCN, or a random walk where the base is not N(0, I)."""
        u = tilt.sample_base(CHECKED, generator=generator)
        try:
            check_gradient(tilt, u)
        except ValueError:
            return PCN(0.3) if is_normal(tilt, u) else RandomWalk(0.3)
        return MALA(0.3)


def _words(weights: dict[str, Any]) -> str:
    k = "–" if weights["pareto_k"] is None else f"{weights['pareto_k']:.2f}"
    return f"effective sample size {100 * weights['ess']:.2g} %, Pareto k̂ {k}"
