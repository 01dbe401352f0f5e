"""A training step recorded once as a CUDA graph and replayed, so that small networks wait for no interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Recorder", "recordable"]

WARM_UP = 3  # steps before the recording, in which libraries choose their kernels and the optimizer makes its state


def recordable(parameters: Sequence[nn.Parameter], noise: Sequence[torch.Generator] | None) -> bool:
    """Whether steps that draw from nothing but `noise` can be recorded: all of it on one GPU."""
    if noise is None or not parameters:
        return False
    return all(p.is_cuda for p in parameters) and all(g.device.type == "cuda" for g in noise)


class Recorder:
    """Calls a step of batches (a tensor or a tuple of them): the first few as they are, later ones as one graph.

    The step returns its loss. A step that cannot be recorded, because it reads numbers back from the GPU, runs as it
    is, and so do batches of another shape than the recorded one's.
    """

    def __init__(self, step: Callable[[Any], Tensor], noise: Sequence[torch.Generator]) -> None:
        self.step, self.noise = step, noise
        self.calls = 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Any) -> Tensor:
        """Take a step: its loss."""
        tensors = batch if isinstance(batch, tuple) else (batch,)
        self.calls += 1
        if self.calls == WARM_UP + 1:
            self._record(tensors, isinstance(batch, tuple))
        if self.graph is None or any(a.shape != b.shape for a, b in zip(self.batch, tensors, strict=True)):
            return self._aside(batch)
        for own, given in zip(self.batch, tensors, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.loss.clone()

    def _aside(self, batch: Any) -> Tensor:
        """A step on a stream of its own, as recording asks of those before it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            loss = self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss

    def _record(self, tensors: tuple[Tensor, ...], several: bool) -> None:
        self.batch = tuple(t.to(self.stream.device, copy=True) for t in tensors)
        graph, before = torch.cuda.CUDAGraph(), [g.clone_state() for g in self.noise]
        for generator in self.noise:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph):
                self.loss = self.step(self.batch if several else self.batch[0])
        except RuntimeError as error:
            for generator, state in zip(self.noise, before, strict=True):
                generator.graphsafe_set_state(state)  # a recording broken off leaves it unusable
            reason = str(error.__context__ or error).splitlines()[0]  # the capture's end says only that it failed
            warnings.warn(f"the step cannot be recorded ({reason}) and runs as it is", RuntimeWarning, stacklevel=2)
        else:
            self.graph = graph
