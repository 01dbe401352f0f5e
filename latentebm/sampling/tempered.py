"""A target between its base distribution and its tilt, and particles moved under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, in_chunks
from latentebm.gradients import differentiate
from latentebm.sampling.importance.weights import check_log_weight
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import Kernel
from latentebm.sampling.mcmc.state import ChainState, start_on
from latentebm.sampling.target import Target, tilt_energy, value_and_grad

__all__ = ["Mover", "TemperedTarget", "base_energy", "check_ladder"]

GAIN = 0.5  # of the log step's move towards the wanted acceptance, per sweep


class TemperedTarget(Target):
    r"""A target with its energy times an inverse temperature :math:`\beta` of (0, 1].

    .. math:: p_\beta(u) \propto e^{-\beta E(u)}\, p_0(u)
    """

    def __init__(self, target: Target, beta: float) -> None:
        self.target, self.beta = target, beta

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, D) points of the target's base distribution."""
        return self.target.sample_base(n, generator=generator)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the target's base distribution."""
        return self.target.log_base(u)

    def energy(self, u: Tensor) -> Tensor:
        """Tempered energies (N,)."""
        return self.beta * tilt_energy(self.target, u)

    def decode(self, u: Tensor) -> Tensor:
        """Data of base points."""
        return self.target.decode(u)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""The potential :math:`\beta (E - \log p_0) - (1 - \beta) \log p_0` (N,) and its gradient (N, D)."""
        value, grad = value_and_grad(self.target, u)
        # A constant base distribution has no gradient of its own to find.
        base, base_grad = differentiate(lambda u: self.log_base(u) + 0 * u.flatten(1).sum(1), u)
        rest = 1 - self.beta
        return self.beta * value - rest * base, self.beta * grad - rest * base_grad


@dataclass
class Mover:
    """A kernel whose step moves towards a wanted acceptance at every sweep, unless that is None.

    Attributes:
        kernel: at its present step.
        acceptance: mean acceptance of each sweep so far.
        evaluations: of the energy so far.
    """

    target: Target
    kernel: Kernel
    wanted: float | None
    generator: torch.Generator

    def __post_init__(self) -> None:
        self.acceptance: list[float] = []
        self.evaluations = 0
        self.checked = False

    def start(self, u: Tensor, beta: float) -> ChainState:
        """Evaluate points (N, D) under the tempered target, which is checked the first time."""
        self.evaluations += len(u)
        tempered = TemperedTarget(self.target, beta)
        if not self.checked:
            self.checked = True
            return start_on(tempered, u, generator=self.generator)
        return ChainState(u, *value_and_grad(self.kernel.sees(tempered, u), u), 0, self.kernel.alone)

    def state_dict(self) -> dict[str, Any]:
        """Where tuning and counts are; of the kernel its numbers, among them the step."""
        numbers = {f.name: getattr(self.kernel, f.name) for f in fields(self.kernel)}
        kept = {name: value for name, value in numbers.items() if isinstance(value, float)}
        names = ("wanted", "acceptance", "evaluations", "checked")
        return {"kernel": kept, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set it to where another was."""
        rest = {name: value for name, value in state.items() if name != "kernel"}
        vars(self).update(rest, kernel=replace(self.kernel, **state["kernel"]))

    def sweep(self, state: ChainState, beta: float, steps: int = 1) -> ChainState:
        """Move all points by some steps at an inverse temperature."""
        kernel, settings = self.kernel, {"generator": self.generator, "compile": False}
        run = run_chains(TemperedTarget(self.target, beta), state, kernel, steps, **settings)  # type: ignore[arg-type]
        self.acceptance.append(run.info.acceptance)
        self.evaluations += steps * len(state.position)
        if kernel.stepped and self.wanted is not None:
            step = run.info.step_size * math.exp(GAIN * (run.info.acceptance - self.wanted))
            self.kernel = kernel.with_step(step)
        return run.state

    def energy(self, state: ChainState, beta: float) -> Tensor:
        """Tilt energies (N,) of a state, from the tempered ones it holds."""
        tempered = state.energy if state.alone else state.energy + self.target.log_base(state.position)
        return tempered / beta


@torch.no_grad()
def base_energy(target: Target, u: Tensor) -> Tensor:
    """Tilt energies (N,) of base draws; −∞ and NaN are refused."""
    energy = in_chunks(lambda part: tilt_energy(target, part), u, chunk_size(CHAIN_NUMBERS, u.device))
    check_log_weight(-energy)
    return energy


def check_ladder(ladder: Sequence[float]) -> tuple[float, ...]:
    """Return inverse temperatures if there are two or more that rise from 0 to 1, or raise a ValueError.

    Example:
        >>> check_ladder([0, 0.5, 0.2, 1])
        Traceback (most recent call last):
        ValueError: ladder: expected inverse temperatures that rise from 0 to 1, got [0, 0.5, 0.2, 1]; sort them...
    """
    values: Any = ladder
    try:
        rungs = torch.as_tensor(list(values), dtype=torch.float64)
        ok = rungs.ndim == 1 and len(rungs) > 1 and rungs[0] == 0 and rungs[-1] == 1 and bool((rungs.diff() > 0).all())
    except (TypeError, ValueError, RuntimeError):
        ok = False
    if not ok:
        expected, fix = "inverse temperatures that rise from 0 to 1", "sort them, and begin at 0 and end at 1"
        raise fail("ladder", expected, values, f"{fix}, each once")
    return tuple(rungs.tolist())
