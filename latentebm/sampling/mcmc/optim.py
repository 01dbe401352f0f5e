"""Langevin kernels as PyTorch optimizers: each step of the parameters is a draw of their posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from latentebm.checks import check_device, check_rng, fail
from latentebm.rng import normal
from latentebm.sampling.mcmc import kernels
from latentebm.sampling.mcmc.kernels import Kernel
from latentebm.sampling.mcmc.moves import langevin_update, langevin_update_foreach

__all__ = ["SGLD", "ImproperSGLD"]


class _LangevinOptimizer(Optimizer):
    """Moves every parameter by a kernel; subclasses say which, and its settings."""

    kernel: ClassVar[type[Kernel]]

    def __init__(
        self, params: Iterable[Any], defaults: dict[str, Any], generator: torch.Generator, foreach: bool | None
    ) -> None:
        self.generator = check_rng(generator)
        self.foreach = foreach
        super().__init__(params, {**defaults, "t": 0})

    def _kernel(self, group: dict[str, Any]) -> Kernel:
        return self.kernel(**{f.name: group[f.name] for f in fields(self.kernel) if f.name in group})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with settings of its own; wrong settings or parameters leave it out."""
        self._kernel({**self.defaults, **param_group})  # checks the settings
        super().add_param_group(param_group)
        if odd := [p.dtype for p in self.param_groups[-1]["params"] if not p.is_floating_point()]:
            del self.param_groups[-1]
            raise fail("params", "floating tensors", str(odd[0]), "pass module.parameters()")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one Langevin step from the parameters' gradients; a closure forms them and returns the potential."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                self._move(moved, self._kernel(group).scales(group["t"]))
            group["t"] += 1
        return loss

    def _move(self, params: list[Tensor], scales: tuple[float, float]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        # One call fills the noise of all parameters; each is then a view of it, in its own precision.
        widest = max(params, key=lambda p: torch.finfo(p.dtype).bits)
        flat = normal((sum(p.numel() for p in params),), self.generator, widest)
        parts = flat.split([p.numel() for p in params])
        noise = [part.view_as(p).to(p) for part, p in zip(parts, params, strict=True)]
        if self.foreach if self.foreach is not None else params[0].is_cuda:
            langevin_update_foreach(params, grads, noise, *scales)
        else:
            for p, g, xi in zip(params, grads, noise, strict=True):
                p.copy_(langevin_update(p, g, xi, *scales))

    def state_dict(self) -> dict[str, Any]:
        """Settings, step counts and the state of the generator: all that an exact continuation needs."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict; one without a generator's state, or of other settings, is refused."""
        state = dict(state_dict)
        if "generator" not in state:
            got, fix = f"keys {sorted(state)}", "pass what state_dict() gave"
            raise fail("state_dict", "the state of a torch.Generator", got, fix)
        for group in state["param_groups"]:
            if missing := sorted(set(self.defaults) - set(group)):
                got = f"none of {', '.join(missing)}"
                raise fail("state_dict", f"settings of {type(self).__name__}", got, "pass one of the same optimizer")
        numbers = state.pop("generator")
        super().load_state_dict(state)
        self.generator.set_state(numbers)

    def __getstate__(self) -> dict[str, Any]:
        # A generator is no plain data: its state goes with the copy, which gets a generator of its own.
        own = {"foreach": self.foreach, "generator": (self.generator.device, self.generator.get_state())}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "generator" in state:  # not where torch's load_state_dict calls this
            device, numbers = state["generator"]
            generator = torch.Generator(check_device("the generator's device", device))
            generator.set_state(numbers)
            state = {**state, "generator": generator}
        super().__setstate__(state)


class SGLD(_LangevinOptimizer):
    r"""Stochastic gradient Langevin dynamics over parameters, by the kernel of the same name.

    For a posterior the potential is N · mean loss − log prior: the loss summed over *all* data, estimated on a batch.

    Each group of parameters may have its own `a`, `b`, `gamma` and `temperature`. Fused operations move all parameters
    of a group (`foreach`) on a GPU, where they pay, or as asked for.

    Example:
        >>> theta = torch.nn.Parameter(torch.tensor([4.0]))
        >>> optimizer = SGLD([theta], a=1.0, b=1.0, gamma=0.0, temperature=0.0, generator=torch.Generator())
        >>> theta.square().sum().div(2).backward()
        >>> _ = optimizer.step(); theta.item()
        2.0
    """

    kernel = kernels.SGLD

    def __init__(
        self,
        params: Iterable[Any],
        *,
        a: float = 0.01,
        b: float = 1.0,
        gamma: float = 0.55,
        temperature: float = 1.0,
        generator: torch.Generator,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(params, {"a": a, "b": b, "gamma": gamma, "temperature": temperature}, generator, foreach)


class ImproperSGLD(_LangevinOptimizer):
    """Langevin steps of parameters, drift and noise set apart, by the kernel of the same name; else as in `SGLD`."""

    kernel = kernels.ImproperSGLD

    def __init__(
        self,
        params: Iterable[Any],
        *,
        alpha: float,
        sigma: float,
        generator: torch.Generator,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(params, {"alpha": alpha, "sigma": sigma}, generator, foreach)
