"""Blocks of steps recorded once as a CUDA graph, and replayed without the interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Captured"]

WARM_UP = 2  # calls before the recording, in which libraries choose their kernels and take their memory


class Captured:
    """A function of steps, as `move_block`, whose calls of one shape replay one recorded graph.

    A potential that cannot be recorded, because it reads numbers back from the device, runs as it is, with a warning.
    """

    def __init__(self, move: Callable[..., Any]) -> None:
        self.move = move
        self.graphs: dict[Any, _Graph] = {}

    def __call__(
        self,
        potential: Any,
        point: tuple[Tensor, Tensor, Tensor],
        noise: Tensor,
        uniform: Tensor | None,
        scales: list[tuple[float, float]],
        *rest: Any,
    ) -> Any:
        """Take the steps from a point."""
        key = (id(potential), noise.shape)
        try:
            if key not in self.graphs:
                self.graphs[key] = _Graph(self.move, potential, (point, noise, uniform), len(scales), rest)
        except RuntimeError as error:
            reason = f"compile: the potential cannot be recorded ({error}); the plain steps run instead"
            warnings.warn(reason, RuntimeWarning, stacklevel=2)
            self.graphs[key] = self.move  # type: ignore[assignment]
        return self.graphs[key](potential, point, noise, uniform, scales, *rest)


class _Graph:
    """One recorded call, with the tensors that it reads and writes."""

    def __init__(self, move: Callable[..., Any], potential: Any, like: Any, steps: int, rest: tuple[Any, ...]) -> None:
        (x, u, g), noise, uniform = like
        self.potential = potential  # kept alive, for the key is its identity
        self.point = tuple(t.clone() for t in (x, u, g))
        self.noise, self.uniform = noise.clone(), None if uniform is None else uniform.clone()
        self.scales = noise.new_zeros(steps, 2)
        moving = (potential, self.point, self.noise, self.uniform, self.scales, *rest)
        stream = torch.cuda.Stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                move(*moving)
        torch.cuda.current_stream(x.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.moved = move(*moving)

    def __call__(
        self, potential: Any, point: Any, noise: Tensor, uniform: Tensor | None, scales: Any, *rest: Any
    ) -> Any:
        for own, given in zip((*self.point, self.noise), (*point, noise), strict=True):
            own.copy_(given)
        if self.uniform is not None:
            self.uniform.copy_(uniform)
        self.scales.copy_(torch.tensor(scales, dtype=noise.dtype, pin_memory=True), non_blocking=True)
        self.graph.replay()
        (x, u, g), counts, path = self.moved
        return (x.clone(), u.clone(), g.clone()), counts.clone(), path.clone()
