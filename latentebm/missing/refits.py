"""Copies of a fitted MIWAE, each refitted to a bootstrap sample of the rows, all side by side."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from latentebm.checks import check_int
from latentebm.data.batches import Minibatches
from latentebm.devices import beside
from latentebm.missing.fit_miwae import MIWAERecipe, bound_loss
from latentebm.missing.miwae import MIWAE, check_rows
from latentebm.progress import Track, silent
from latentebm.rng import integers
from latentebm.training.fit import fit

__all__ = ["refit_to_bootstraps"]


def refit_to_bootstraps(
    model: MIWAE, x: Tensor, mask: Tensor, recipe: MIWAERecipe, m: int, *, generator: torch.Generator,
    track: Track = silent,
) -> list[MIWAE]:  # fmt: skip
    r"""Refit m copies of a MIWAE, each to rows drawn with replacement; on small tables all cost little more than one.

    .. math:: \theta_i = \arg\max_\theta \sum_n c_{in} \log p_\theta(x_{n,obs}), \qquad c_i \sim \text{multinomial}

    They spread as the parameters fitted to other tables of as many rows would, which multiple imputation has to show.
    Arguments are as in :func:`fit_miwae`; the model itself is not changed.

    References:
        Missing data, imputation, and the bootstrap (Efron, 1994)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, model = torch.randn(20, 2, generator=rng), MIWAE(["gaussian"] * 2, 1, width=8)
        >>> recipe = MIWAERecipe(k=2, steps=20, lr=0.1)
        >>> first, second = refit_to_bootstraps(model, x, torch.ones(20, 2), recipe, 2, generator=rng)
        >>> bool((first.decode(torch.zeros(1, 1)) != second.decode(torch.zeros(1, 1))).all())
        True
    """
    check_rows(x, mask)
    x, mask = beside(model, x), beside(model, mask)
    copies = _Copies(model, check_int("m", m))
    n = min(len(x), recipe.steps * recipe.batch_size)  # no more rows than the steps can see
    rows = integers(len(x), (n, m), generator, x.device)
    epochs = -(-recipe.steps // max(1, n // recipe.batch_size))
    batches = Minibatches(rows, batch_size=recipe.batch_size, epochs=epochs, generator=generator)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        return copies.loss(x[batch[0]], mask[batch[0]], recipe.k, generator)

    # Each copy's gradient is its own; their common norm is that of one times √m.
    clip = None if recipe.clip is None else recipe.clip * math.sqrt(m)
    fit(
        copies, loss, batches, replace(recipe, clip=clip), state=[generator], data=[x, mask], track=track,
        description="copies of the MIWAE",
    )  # fmt: skip
    return copies.models(model)


class _Copies(nn.Module):
    """M copies of a model whose parameters are stacked, (M, …)."""

    def __init__(self, model: MIWAE, m: int) -> None:
        super().__init__()
        stacked, self.buffers_of = stack_module_state([model] * m)
        self.names = list(stacked)
        self.stacked = nn.ParameterList(nn.Parameter(p.detach().clone()) for p in stacked.values())
        self.form = [_Loss(model)]  # in a list: not a part of this module

    def loss(self, x: Tensor, mask: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Sum of the losses of all copies at their batches x (N, M, D)."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, mask: Tensor) -> Tensor:
            return functional_call(self.form[0], (parameters, buffers), (x, mask, k, generator))

        each = vmap(one, in_dims=(0, 0, 1, 1), randomness="different")
        named = {f"model.{n}": p for n, p in zip(self.names, self.stacked, strict=True)}
        return each(named, {f"model.{n}": b for n, b in self.buffers_of.items()}, x, mask).sum()

    def models(self, form: MIWAE) -> list[MIWAE]:
        """Each copy as a model of its own."""
        copies = [deepcopy(form) for _ in range(len(self.stacked[0]))]
        for i, copy in enumerate(copies):
            copy.load_state_dict({n: p[i] for n, p in zip(self.names, self.stacked, strict=True)}, strict=False)
        return copies


class _Loss(nn.Module):
    """The loss of a model as a module's call, which is what takes other parameters."""

    def __init__(self, model: MIWAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor, k: int, generator: torch.Generator) -> Tensor:
        return bound_loss(self.model, x, mask, k, generator)
