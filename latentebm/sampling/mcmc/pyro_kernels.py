"""Pyro's Hamiltonian kernels, which also note what Pyro does not keep; imported when one draws, not before."""

from __future__ import annotations

import math
from typing import Any

from pyro.infer import MCMC, mcmc

__all__ = ["MCMC", "RecordedHMC", "RecordedNUTS"]

MOST_STEPS = 1_024  # leapfrog steps of a trajectory, as many as NUTS takes at most: a tiny step ends, and shows in R̂


class _Recorded:
    """Notes the Hamiltonian at each fresh momentum, which Pyro does not keep and E-BFMI needs."""

    def _sample_r(self, name: str) -> tuple[Any, Any]:
        r, unscaled = super()._sample_r(name)  # type: ignore[misc]
        hamiltonian = self._kinetic_energy(unscaled) + self._potential_energy_last  # type: ignore[attr-defined]
        self.__dict__.setdefault("hamiltonians", []).append(float(hamiltonian))
        return r, unscaled


class RecordedNUTS(_Recorded, mcmc.NUTS):
    """The no-U-turn sampler."""


class RecordedHMC(_Recorded, mcmc.HMC):
    """Trajectories of a length in time."""

    @property
    def num_steps(self) -> int:
        """Leapfrog steps that make a trajectory at least as long as asked for; Pyro's own count falls short of it."""
        return min(MOST_STEPS, math.ceil(self.trajectory_length / self.step_size))
