"""An ensemble of anybody's energy network, its members stacked so that one fit trains all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from latentebm.checks import fail
from latentebm.models.energies import EnsembleEnergy
from latentebm.rng import seeded

__all__ = ["Ensemble"]


class Ensemble(EnsembleEnergy):
    """Mean energy of M networks of one make, evaluated side by side by ``torch.func.vmap``.

    Arguments:
        build: makes one network from inputs (N, *event_shape) to energies (N,) or (N, 1); called once per member.
        event_shape: shape of one input.
        members: ensemble size M.
        limit: bound L of each member, in nats; None for none.
        generator: source of the initial weights.

    Raises:
        ValueError: a size below one, or a network that is no module or gives something else.

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
        self._names = list(weights)
        self.weights = nn.ParameterList(nn.Parameter(w.detach().clone()) for w in weights.values())
        self._constants = list(constants)
        for i, value in enumerate(constants.values()):
            self.register_buffer(f"constant_{i}", value)

    def members(self, x: Tensor) -> Tensor:
        """Energies (M, N) of every member, for inputs (N, *event_shape) or a batch per member (M, N, *event_shape)."""
        shared = x.ndim == len(self.config["event_shape"]) + 1
        state = dict(zip(self._names, self.weights, strict=True))
        state |= {name: getattr(self, f"constant_{i}") for i, name in enumerate(self._constants)}

        form = self.__dict__["_form"]

        def one(state: dict[str, Tensor], x: Tensor) -> Tensor:
            return cast(Tensor, functional_call(form, state, (x,))).reshape(len(x))

        free = torch.func.vmap(one, in_dims=(0, None if shared else 0))(state, x)
        return self.bounded(free)


def _checked(network: Any, event_shape: tuple[int, ...]) -> nn.Module:
    if not isinstance(network, nn.Module):
        got = type(network).__name__
        raise fail("energy", "a function that builds a torch module", got, "return an nn.Module")
    with torch.no_grad():
        energy = network(torch.zeros(2, *event_shape))
    if not isinstance(energy, Tensor) or energy.shape not in ((2,), (2, 1)) or not energy.is_floating_point():
        got = str(tuple(energy.shape)) if isinstance(energy, Tensor) else type(energy).__name__
        raise fail("energy", "a module from (N, *shape) to (N,) floating numbers", got, "end it in one output")
    return network
