"""Fit a MIWAE or not-MIWAE to incomplete rows held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_int
from latentebm.data.batches import Minibatches
from latentebm.missing.bound import iwae_bound, miwae_log_weight, not_miwae_log_weight
from latentebm.missing.miwae import MIWAE, Terms
from latentebm.progress import Track, silent
from latentebm.training.fit import FitResult, fit
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["MIWAERecipe", "fit_miwae", "log_weights"]


@dataclass(frozen=True, kw_only=True)
class MIWAERecipe(Optimisation):
    """How a MIWAE is fitted; `Optimisation` says what lr, schedule, clip, weight_decay and average are.

    Attributes:
        k: importance draws a row in the bound.
        steps: optimizer steps; epochs are rounded up to whole ones.
        batch_size: rows a step.

    Raises:
        ValueError: a setting lies outside its range.

    Example:
        >>> MIWAERecipe().k
        20
    """

    k: int = 20
    steps: int = 4000
    batch_size: int = 64
    schedule: Schedule = "cosine"
    clip: float | None = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("k", "steps", "batch_size"):
            check_int(name, getattr(self, name))


def log_weights(model: MIWAE, terms: Terms) -> Tensor:
    """Log-weights (K, N) of posterior draws: those of the not-MIWAE where the model has a missing model.

    Example:
        >>> model = MIWAE(["gaussian"], latent_dim=1, width=8)
        >>> terms = model.terms(torch.zeros(2, 1), torch.ones(2, 1), 3, generator=torch.Generator().manual_seed(0))
        >>> log_weights(model, terms).shape
        torch.Size([3, 2])
    """
    if model.missing is None:
        return miwae_log_weight(terms.log_likelihood, terms.log_prior, terms.log_proposal)
    return not_miwae_log_weight(terms.log_likelihood, terms.log_missing, terms.log_prior, terms.log_proposal)


def fit_miwae(
    model: MIWAE,
    x: Tensor,
    mask: Tensor,
    recipe: MIWAERecipe | None = None,
    *,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Maximise the importance-weighted bound of incomplete rows.

    .. math:: \max_{\theta,\phi}\; \mathrm{mean}_i \log \frac1K \sum_k w_{ik}

    Arguments:
        model: fitted in place.
        x: values (N, D), standardised where numeric; what missing cells hold is never read.
        mask: 1 = observed, (N, D).
        recipe: optimizer settings.
        generator: source of batch order and draws (CPU).
        track: shows progress.

    Returns:
        The record of the fit; losses are nats a row.

    Raises:
        ValueError: shapes disagree.
        DivergedError: the bound became NaN or infinite.

    References:
        MIWAE: Deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x = torch.randn(64, 2, generator=rng)
        >>> recipe = MIWAERecipe(k=2, steps=200, lr=0.01)
        >>> model = MIWAE(["gaussian"] * 2, latent_dim=1, width=8)
        >>> result = fit_miwae(model, 5 + x, torch.ones(64, 2), recipe, generator=rng)
        >>> result.losses[-1] < result.losses[0]
        True
    """
    recipe = recipe or MIWAERecipe()
    batch = min(recipe.batch_size, len(x))
    epochs = -(-recipe.steps // (len(x) // batch))
    batches = Minibatches(x, mask, batch_size=batch, epochs=epochs, generator=generator)

    def loss(rows: tuple[Tensor, ...]) -> Tensor:
        terms = model.terms(rows[0], rows[1], recipe.k, generator=generator)
        return -iwae_bound(log_weights(model, terms)).mean()

    model.train()
    result = fit(model, loss, batches, recipe, track=track, description="MIWAE")
    model.eval()
    return result
