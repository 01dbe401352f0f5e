"""Several MIWAE of one form side by side: fitted to all rows but a fold, or refitted to bootstrap samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from latentebm.checks import fail
from latentebm.data.batches import Minibatches
from latentebm.devices import beside
from latentebm.missing.fit_miwae import (
    MIWAERecipe,
    Prediction,
    bound_loss,
    codes_per_row,
    hidden_at_random,
)
from latentebm.missing.miwae import MIWAE, check_rows
from latentebm.progress import Track, silent
from latentebm.rng import child, integers, normal, permutation
from latentebm.training.fit import FitResult, fit
from latentebm.training.logs import Log

__all__ = ["fit_to_folds", "refit_to_bootstraps"]


def fit_to_folds(
    models: Sequence[MIWAE], x: Tensor, mask: Tensor, recipe: MIWAERecipe, *, generator: torch.Generator,
    track: Track = silent, log: Log | None = None,
) -> FitResult:  # fmt: skip
    r"""Fit M models in place, each to all rows but a fold of its own, which chooses its best state.

    .. math:: \hat x = \frac1M \sum_m \mathrm{E}_{\theta_m}[x_{mis}|x_{obs}], \qquad
              \theta_m \text{ fitted without fold } m

    Every row takes part in M − 1 of the fits; the mean of the models varies less than each of them. Arguments are as in
    :func:`fit_miwae`; the losses of the result are sums over the models.

    References:
        Bagging predictors (Breiman, 1996); cross-validation committees (Parmanto, Munro and Doyle, 1996)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, models = torch.randn(20, 2, generator=rng), [MIWAE(["gaussian"] * 2, 1, width=8) for _ in range(2)]
        >>> fit_to_folds(models, x, torch.ones(20, 2), MIWAERecipe(k=2, steps=20), generator=rng).best.shape
        torch.Size([2])
    """
    check_rows(x, mask)
    x, mask = beside(models[0], x), beside(models[0], mask)
    members, size = _Copies(models), len(x) // len(models)
    if not size:
        raise fail("x", f"at least {len(models)} rows, one for each fold", len(x), "pass fewer models")
    order = permutation(len(x), generator, x.device)
    # Of each model: the rows of its fold, and all others in an order of their own.
    out = torch.stack([order[m * size : (m + 1) * size] for m in range(len(models))])
    rest = [torch.cat([order[: m * size], order[(m + 1) * size :]]) for m in range(len(models))]
    train = torch.stack([rows[permutation(len(rows), generator, x.device)] for rows in rest], 1)
    codes = codes_per_row(models[0], size * len(models))
    judge, noises = child(generator), (len(models), codes, size, models[0].latent_dim)
    shown = hidden_at_random(mask[out].flatten(0, 1), judge).unflatten(0, out.shape)
    held_out = x[out], mask[out], shown, normal(noises, judge, x)
    result = _fit(members, x, mask, train, recipe, generator, track, "MIWAE", held_out=held_out, log=log)
    members.load_into(models)
    return result


def refit_to_bootstraps(
    models: Sequence[MIWAE], x: Tensor, mask: Tensor, recipe: MIWAERecipe, *, generator: torch.Generator,
    track: Track = silent,
) -> list[MIWAE]:  # fmt: skip
    r"""Refit a copy of each model to rows drawn with replacement; on small tables all cost little more than one.

    .. math:: \theta_i = \arg\max_\theta \sum_n c_{in} \log p_\theta(x_{n,obs}), \qquad c_i \sim \text{multinomial}

    They spread as the parameters fitted to other tables of as many rows would, which multiple imputation has to show.
    Arguments are as in :func:`fit_miwae`; a model may occur more than once, and none is changed.

    References:
        Missing data, imputation, and the bootstrap (Efron, 1994)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, model = torch.randn(20, 2, generator=rng), MIWAE(["gaussian"] * 2, 1, width=8)
        >>> recipe = MIWAERecipe(k=2, steps=20, lr=0.1)
        >>> first, second = refit_to_bootstraps([model] * 2, x, torch.ones(20, 2), recipe, generator=rng)
        >>> bool((first.decode(torch.zeros(1, 1)) != second.decode(torch.zeros(1, 1))).all())
        True
    """
    check_rows(x, mask)
    x, mask = beside(models[0], x), beside(models[0], mask)
    n = min(len(x), recipe.steps * recipe.batch_size)  # no more rows than the steps can see
    rows = integers(len(x), (n, len(models)), generator, x.device)
    copies, refitted = _Copies(models), [deepcopy(model) for model in models]
    _fit(copies, x, mask, rows, recipe, generator, track, "copies of the MIWAE")
    copies.load_into(refitted)
    return refitted


def _fit(
    copies: _Copies, x: Tensor, mask: Tensor, rows: Tensor, recipe: MIWAERecipe, generator: torch.Generator,
    track: Track, description: str, *, held_out: tuple[Tensor, ...] | None = None, log: Log | None = None,
) -> FitResult:  # fmt: skip
    """Fit M copies to the rows (N, M) of a table, each to its own."""
    epochs = -(-recipe.steps // max(1, len(rows) // recipe.batch_size))
    batches = Minibatches(rows, batch_size=recipe.batch_size, epochs=epochs, generator=generator)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        return copies.loss(x[batch[0]], mask[batch[0]], recipe.k, generator)

    # Each copy's gradient is its own; their common norm is that of one times √M.
    clip = None if recipe.clip is None else recipe.clip * math.sqrt(rows.shape[1])
    validate = None if held_out is None else lambda: copies.errors(*held_out)
    return fit(
        copies, loss, batches, replace(recipe, clip=clip), validate=validate, every=max(1, len(batches) // 20),
        state=[generator], data=[x, mask], track=track, log=log, description=description,
    )  # fmt: skip


class _Copies(nn.Module):
    """M models whose parameters are stacked, (M, …)."""

    def __init__(self, models: Sequence[MIWAE]) -> None:
        super().__init__()
        stacked, self.buffers_of = stack_module_state(list(models))
        self.names = list(stacked)
        self.stacked = nn.ParameterList(nn.Parameter(p.detach().clone()) for p in stacked.values())
        self.forms = _Loss(models[0]), Prediction(models[0])  # in a tuple: not a part of this module

    def loss(self, x: Tensor, mask: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Sum of the losses of all copies at their batches x (N, M, D)."""
        return self._each(self.forms[0], (1, 1, None, None), x, mask, k, generator).sum()

    def errors(self, *held_out: Tensor) -> Tensor:
        """How well each copy predicts its held-out rows x (M, N, D), (M,)."""
        return self._each(self.forms[1], (0,) * len(held_out), *held_out)

    def load_into(self, models: Sequence[MIWAE]) -> None:
        """Give each model its parameters."""
        for i, model in enumerate(models):
            model.load_state_dict({n: p[i] for n, p in zip(self.names, self.stacked, strict=True)}, strict=False)
            model.eval()

    def _each(self, form: nn.Module, dims: tuple[int | None, ...], *given: Any) -> Tensor:
        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *given: Any) -> Tensor:
            return functional_call(form, (parameters, buffers), given)

        named = {f"model.{n}": p for n, p in zip(self.names, self.stacked, strict=True)}
        buffers = {f"model.{n}": b for n, b in self.buffers_of.items()}
        return vmap(one, in_dims=(0, 0, *dims), randomness="different")(named, buffers, *given)


class _Loss(nn.Module):
    """The loss of a model as a module's call, which is what takes other parameters."""

    def __init__(self, model: MIWAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor, k: int, generator: torch.Generator) -> Tensor:
        return bound_loss(self.model, x, mask, k, generator)
