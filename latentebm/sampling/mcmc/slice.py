"""Elliptical slice sampling: a kernel over a standard normal base distribution, with no step size."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latentebm.rng import uniform
from latentebm.sampling.mcmc.moves import MoveBlock, Point
from latentebm.sampling.mcmc.pcn import BaseKernel
from latentebm.sampling.target import Potential, value_and_grad

__all__ = ["EllipticalSlice"]

SHRINKS = 100  # after which a bracket is below the resolution of an angle, and its chain stays


@dataclass(frozen=True)
class EllipticalSlice(BaseKernel):
    r"""Elliptical slice sampling: a point of an ellipse through the present one, drawn above a random level.

    .. math:: y = x \cos\theta + \nu \sin\theta, \quad \nu \sim N(0, I), \quad E(y) \le E(x) - \log u

    The angle's bracket shrinks towards the present point until the level is met: it never rejects and has nothing to
    tune, and takes a few evaluations of the energy per step, and no gradient.

    References:
        Elliptical slice sampling (Murray, Adams and MacKay, 2010), https://arxiv.org/abs/1001.0175
    """

    gradient: ClassVar[bool] = False
    stepped: ClassVar[bool] = False

    def scales(self, t: int) -> tuple[float, float]:
        """No drift, and fresh noise of the base distribution's scale."""
        return 0.0, 1.0

    def shrink(self, low: Tensor, high: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """The bracket (N,), (N,) cut at angles (N,) that missed the level, on the side away from the present point."""
        return torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)

    def block(self, generator: torch.Generator) -> MoveBlock:
        """Steps that draw their angles from a generator."""
        return functools.partial(_slices, self, generator)


def _slices(
    kernel: EllipticalSlice,
    generator: torch.Generator,
    potential: Potential,
    point: Point,
    noise: Tensor,
    levels: Tensor,
    scales: list[tuple[float, float]],
    preconditioner: Tensor | None,
    clip: float | None,
    trace: int,
) -> tuple[Point, Tensor, Tensor]:
    """Take K steps, in the form of `move_block`."""
    counts, path = noise.new_zeros(3), []
    for fresh, level in zip(noise, levels, strict=True):
        # A level of 0 would be met by every energy: the least uniform number above it stands for it.
        bound = point[1] - level.clamp(min=torch.finfo(level.dtype).tiny).log()
        point, stayed = _one_slice(kernel, generator, potential, point, fresh, bound)
        counts += counts.new_tensor([len(fresh) - stayed, 0, stayed])
        if trace:
            path.append(point[0][:trace].clone())
    return point, counts, torch.stack(path) if trace else noise.new_empty(0)


def _one_slice(
    kernel: EllipticalSlice,
    generator: torch.Generator,
    potential: Potential,
    point: Point,
    fresh: Tensor,
    bound: Tensor,
) -> tuple[Point, int]:
    """One step of every chain, those that have met their level left alone; and how many never met it."""
    x, energy, grad = (t.clone() for t in point)
    rows = torch.arange(len(x), device=x.device)
    angle = 2 * math.pi * uniform((len(x),), generator, bound)
    low, high = angle - 2 * math.pi, angle
    for _ in range(SHRINKS):
        y = _turned(point[0][rows], fresh[rows], angle)
        value, _ = value_and_grad(potential, y)
        met = value <= bound[rows]  # NaN compares false: it is outside every slice
        x[rows[met]], energy[rows[met]] = y[met], value[met]
        rows, left = rows[~met], ~met
        if not len(rows):
            break
        low, high = kernel.shrink(low[left], high[left], angle[left])
        angle = low + (high - low) * uniform((len(rows),), generator, bound)
    return (x, energy, grad), len(rows)


def _turned(x: Tensor, fresh: Tensor, angle: Tensor) -> Tensor:
    wide: Any = (-1, *[1] * (x.ndim - 1))
    return x * angle.cos().view(wide) + fresh * angle.sin().view(wide)
