"""Fit a MIWAE or not-MIWAE to incomplete rows held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.data.batches import Minibatches
from latentebm.missing.bound import iwae_bound
from latentebm.missing.miwae import MIWAE
from latentebm.progress import Track, silent
from latentebm.training.fit import FitResult, fit
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["MIWAERecipe", "fit_miwae"]


@dataclass(frozen=True, kw_only=True)
class MIWAERecipe(Optimisation):
    """How a MIWAE is fitted; `Optimisation` says what lr, schedule, clip, weight_decay and average are."""

    k: int = 20  # importance draws per row in the bound
    steps: int = 4000  # of the optimizer; epochs are rounded up to whole ones
    batch_size: int = 64  # rows per step
    schedule: Schedule = "cosine"
    clip: float | None = 10.0


def fit_miwae(
    model: MIWAE,
    x: Tensor,
    mask: Tensor,
    recipe: MIWAERecipe | None = None,
    *,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Maximise the importance-weighted bound of incomplete rows, in place.

    .. math:: \max_{\theta,\phi}\; \mathrm{mean}_i \log \frac1K \sum_k w_{ik}

    Values x (N, D) are standardised where numeric; what they hold where the mask (N, D) is 0 is never read. The CPU
    generator orders the batches and draws. The losses of the result are in nats per row.

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
    epochs = -(-recipe.steps // max(1, len(x) // recipe.batch_size))
    batches = Minibatches(x, mask, batch_size=recipe.batch_size, epochs=epochs, generator=generator)

    def loss(rows: tuple[Tensor, ...]) -> Tensor:
        return -iwae_bound(model.terms(rows[0], rows[1], recipe.k, generator=generator).log_weight).mean()

    model.train()
    result = fit(model, loss, batches, recipe, state=[generator], track=track, description="MIWAE")
    model.eval()
    return result
