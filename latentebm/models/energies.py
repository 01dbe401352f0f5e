"""Energy networks as ensembles: what they share, the ensemble of small perceptrons, and that of anybody's network."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional as F

from latentebm.checks import check_event, check_int, check_number, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.rng import seeded, uniform

__all__ = ["EnergyNet", "Ensemble", "EnsembleEnergy", "initial"]

E = TypeVar("E", bound="EnsembleEnergy")


class EnsembleEnergy(nn.Module, ABC):
    r"""Mean energy of M independent networks.

    .. math:: E(x) = \frac1M \sum_m L \tanh\big(e_m(x) / L\big)

    The mean of energies is the logarithm of a geometric mean of tilts: it keeps what the members agree on and lets
    go of what only one saw in its part of a small reference set. Far from all data a network without a bound L, in
    nats, goes on falling, and a handful of remote draws would carry the weights.

    The `config` holds the arguments that make an energy of the same shape, among them ``members`` and ``limit``.

    References:
        Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles (Lakshminarayanan et al., 2017),
        https://arxiv.org/abs/1612.01474
    """

    stores_weights = True

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.n_members = check_int("members", config["members"])
        limit = config["limit"]
        self.limit = None if limit is None else check_number("limit", limit, low=0, open_low=True)

    def arguments(self) -> dict[str, Any]:
        """The `config`, by which `from_config` makes an energy of the same shape."""
        return dict(self.config)

    @classmethod
    def from_config(cls: type[E], config: dict[str, Any]) -> E:
        """An energy of the same shape as one that had this `config`, its weights not yet loaded."""
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        return cls(**arguments)

    @abstractmethod
    def members(self, x: Tensor) -> Tensor:
        """Energies (M, N) of every member, for points (N, *event) or a batch per member (M, N, *event)."""

    def forward(self, x: Tensor) -> Tensor:
        """Energies (N,) of points (N, *event), in nats."""
        return self.members(x).mean(0)

    def start_from(self: E, one: EnsembleEnergy) -> E:
        """Give every member the network of an ensemble of one member of the same make."""
        with torch.no_grad():
            for mine, theirs in zip(self.parameters(), one.parameters(), strict=True):
                mine.copy_(theirs.expand_as(mine))
        return self

    def part(self: E, members: range) -> E:
        """An ensemble of its own of some of the members, a copy.

        Example:
            >>> energy = EnergyNet(2, members=3)
            >>> energy.part(range(1, 3)).members(torch.zeros(5, 2)).shape
            torch.Size([2, 5])
        """
        part = copy.deepcopy(self)
        part.n_members = check_int("members", len(members))
        part.config = {**self.config, "members": len(members)}
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.data = tensor.data[members.start : members.stop].clone()
        return part

    def bounded(self, free: Tensor) -> Tensor:
        """Energies brought within the limit, if there is one."""
        return free if self.limit is None else self.limit * torch.tanh(free / self.limit)


class EnergyNet(EnsembleEnergy):
    r"""Mean energy of M independent perceptrons with SiLU, evaluated together by batched products.

    .. math:: e_m(z) = w_m^\top h_m(z) + b_m

    The last layer starts at zero, i.e. at no tilt; without a generator the others draw from torch's global stream.

    Example:
        >>> energy = EnergyNet(2, members=3)
        >>> energy(torch.randn(5, 2)).tolist(), energy.members(torch.randn(5, 2)).shape
        ([0.0, 0.0, 0.0, 0.0, 0.0], torch.Size([3, 5]))
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: tuple[int, ...] = (128, 64),
        members: int = 1,
        limit: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__({"dim": dim, "hidden": list(hidden), "members": members, "limit": limit})
        sizes = [check_int("dim", dim), *(check_int("hidden", h) for h in hidden), 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for i, o in itertools.pairwise(sizes):
            bound = 0.0 if o == 1 else 1 / math.sqrt(i)
            self.weights.append(initial((members, i, o), bound, generator))
            self.biases.append(initial((members, 1, o), bound, generator))

    @property
    def perceptrons(self) -> tuple[list[Tensor], list[Tensor], float | None]:
        """Weights (M, in, out) and biases (M, 1, out) of each layer, and the limit: all that a compiled form needs."""
        return list(self.weights), list(self.biases), self.limit

    def members(self, z: Tensor) -> Tensor:
        """Energies (M, N) of every member, for points (N, dim) or a batch per member (M, N, dim)."""
        check_event("z", z.flatten(0, -2), (self.config["dim"],))
        if z.ndim > 2 or z.device.type != "cpu" or torch.is_grad_enabled():
            return self._free(z)
        # As many as the caches hold: the same numbers in about a third of the time.
        return in_chunks(self._free, z, chunk_size(self.n_members * max(1, sum(self.config["hidden"]))), dim=1)

    def _free(self, z: Tensor) -> Tensor:
        return self.bounded(self._layers(z)[-1].squeeze(-1))

    @torch.no_grad()
    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Energies (N,) of points (N, dim) and their gradients (N, dim) in closed form, without a graph.

        .. math:: \nabla_{a_{k-1}} E_m = W_k \big(\mathrm{silu}'(h_k) \odot \nabla_{a_k} E_m\big)

        A subclass of another energy overrides this as well: chains compare the values.
        """
        check_event("z", z, (self.config["dim"],))
        *hidden, free = self._layers(z)
        value = self.bounded(free)
        slope = torch.ones_like(free) if self.limit is None else 1 - (value / self.limit).square()
        grad = (slope / self.n_members) @ self.weights[-1].mT
        for h, weight in zip(reversed(hidden), reversed(self.weights[:-1]), strict=True):
            grad = torch.bmm(torch.ops.aten.silu_backward(grad, h), weight.mT)
        return value.squeeze(-1).mean(0), grad.sum(0)

    def _layers(self, z: Tensor) -> list[Tensor]:
        """Every layer's output (M, N, width) before its activation."""
        layers = [torch.baddbmm(self.biases[0], z.expand(self.n_members, *z.shape[-2:]), self.weights[0])]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            layers.append(torch.baddbmm(bias, F.silu(layers[-1]), weight))
        return layers


class Ensemble(EnsembleEnergy):
    """Mean energy of M networks of one make, evaluated side by side by ``torch.func.vmap``.

    `build` makes, from the shape of one input, a network of inputs (N, *event_shape) to energies (N,) or (N, 1); it is
    called once per member, and anything else is refused.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> energy = Ensemble(lambda shape: nn.Linear(*shape, 1), (2,), members=3, generator=rng)
        >>> energy(torch.ones(5, 2)).shape, energy.members(torch.ones(3, 5, 2)).shape
        (torch.Size([5]), torch.Size([3, 5]))
    """

    def __init__(
        self,
        build: Callable[[tuple[int, ...]], nn.Module],
        event_shape: tuple[int, ...],
        *,
        members: int = 1,
        limit: float | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__({"event_shape": list(event_shape), "members": members, "limit": limit})
        with seeded(generator):
            built = [_checked(build(tuple(event_shape)), event_shape) for _ in range(members)]
        weights, constants = stack_module_state(built)
        # One network lends its form; its own weights are replaced by each member's when it is called.
        self.__dict__["_form"] = built[0].to("meta")
        self.build = build
        self._names = list(weights)
        self.weights = nn.ParameterList(nn.Parameter(w.detach().clone()) for w in weights.values())
        self._constants = list(constants)
        for i, value in enumerate(constants.values()):
            self.register_buffer(f"constant_{i}", value)

    def arguments(self) -> dict[str, Any]:
        """The `config`, and the function that builds a network."""
        return {**self.config, "build": self.build}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Ensemble:
        """An ensemble of the same shape, of networks that ``config["build"]`` makes."""
        return cls(**{**config, "event_shape": tuple(config["event_shape"])}, generator=torch.Generator())

    def members(self, x: Tensor) -> Tensor:
        """Energies (M, N) of every member, for inputs (N, *event_shape) or a batch per member (M, N, *event_shape)."""
        shared = x.ndim == len(self.config["event_shape"]) + 1
        state = dict(zip(self._names, self.weights, strict=True))
        state |= {name: getattr(self, f"constant_{i}") for i, name in enumerate(self._constants)}

        def one(state: dict[str, Tensor], x: Tensor) -> Tensor:
            return cast(Tensor, functional_call(self.__dict__["_form"], state, (x,))).reshape(len(x))

        return self.bounded(torch.func.vmap(one, in_dims=(0, None if shared else 0))(state, x))


def _checked(network: Any, event_shape: tuple[int, ...]) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise fail("energy", "a function that builds a torch module", type(network).__name__, "return an nn.Module")
    with torch.no_grad():
        energy = network(torch.zeros(2, *event_shape))
    if not isinstance(energy, Tensor) or energy.shape not in ((2,), (2, 1)) or not energy.is_floating_point():
        got = str(tuple(energy.shape)) if isinstance(energy, Tensor) else type(energy).__name__
        raise fail("energy", "a module from (N, *shape) to (N,) floating numbers", got, "end it in one output")
    return network


def initial(shape: tuple[int, ...], bound: float, generator: torch.Generator | None) -> nn.Parameter:
    """A parameter drawn uniformly from [−bound, bound), from torch's global stream without a generator."""
    draws = torch.rand(shape) if generator is None else uniform(shape, generator, torch.empty(0))
    return nn.Parameter((2 * draws - 1) * bound)
