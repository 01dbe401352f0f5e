"""Fit a MIWAE or not-MIWAE to incomplete rows held in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from latentebm.data.batches import Minibatches
from latentebm.devices import beside
from latentebm.missing.bound import Terms, iwae_bound
from latentebm.missing.miwae import MIWAE, check_rows
from latentebm.progress import Track, silent
from latentebm.rng import child, normal, permutation, uniform
from latentebm.training.fit import FitResult, fit
from latentebm.training.logs import Log
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = [
    "MIWAERecipe",
    "Prediction",
    "bound_loss",
    "codes_per_row",
    "fit_miwae",
    "hidden_at_random",
    "proposal_score",
]

FEWEST, CODES, CELLS = 5, 50, 16_000_000  # codes per row by which a state is judged; numbers of one of their arrays


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
    held_out: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Maximise the importance-weighted bound of incomplete rows, in place.

    .. math:: \max_{\theta,\phi}\; \mathrm{mean}_i \log \frac1K \sum_k w_{ik}
              + \sum_k \bar w_{ik} \log q_\phi(z_{ik} | x_{i,shown})

    In the second term, of :func:`proposal_score`, a random part of each row's cells is hidden from the encoder.

    Values x (N, D) are standardised where numeric; what they hold where the mask (N, D) is 0 is never read. The CPU
    generator orders the batches and draws. Of 20 states along the fit, the one that best predicts hidden cells of the
    `held_out` values and mask is kept, if there are any. The losses of the result are those of the
    bound, in nats per row.

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
    check_rows(x, mask)
    if len(x) > recipe.steps * recipe.batch_size:  # more rows than the steps can see
        rows = permutation(len(x), generator, x.device)[: recipe.steps * recipe.batch_size]
        x, mask = x[rows], mask[rows]
    epochs = -(-recipe.steps // max(1, len(x) // recipe.batch_size))
    x, mask = beside(model, x), beside(model, mask)
    batches = Minibatches(x, mask, batch_size=recipe.batch_size, epochs=epochs, generator=generator)

    def loss(rows: tuple[Tensor, ...]) -> Tensor:
        return bound_loss(model, rows[0], rows[1], recipe.k, generator)

    validate = None if held_out is None else partial(Prediction(model), *_hidden(model, *held_out, child(generator)))
    model.train()
    result = fit(
        model, loss, batches, recipe, validate=validate, every=max(1, len(batches) // 20), state=[generator],
        track=track, log=log, description="MIWAE",
    )  # fmt: skip
    model.eval()
    return result


def bound_loss(model: MIWAE, x: Tensor, mask: Tensor, k: int, generator: torch.Generator) -> Tensor:
    r"""Minus the mean bound of rows x (N, D), nats per row; its gradient is that of :func:`fit_miwae`'s both terms.

    Example:
        >>> model, rng = MIWAE(["gaussian"] * 2, latent_dim=1, width=8), torch.Generator().manual_seed(0)
        >>> bound_loss(model, torch.zeros(4, 2), torch.ones(4, 2), 5, rng).shape
        torch.Size([])
    """
    terms = model.terms(x, mask, k, generator=generator)
    extra = proposal_score(model, x, hidden_at_random(mask, generator), terms)
    return -(iwae_bound(terms.log_weight) + extra - extra.detach()).mean()  # the value stays the bound's


class Prediction(nn.Module):
    r"""Mean squared error of hidden cells of held-out rows, by the same codes' noise each time: lower is better.

    Numbers are standardised, and classes and flags count by their Brier score, which is the squared error of their
    probabilities. A likelihood would choose states too early: it falls by scales that are too sure long before means
    get worse.

    Example:
        >>> model, rng = MIWAE(["gaussian"] * 2, latent_dim=1, width=8), torch.Generator().manual_seed(0)
        >>> x = torch.ones(9, 2)
        >>> Prediction(model)(x, x, 0 * x, torch.zeros(50, 9, 1)).item() > 0
        True
    """

    def __init__(self, model: MIWAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor, shown: Tensor, noise: Tensor) -> Tensor:
        """The error of values x (N, D) of a mask (N, D), of which a mask `shown` (N, D) is seen, by noise (K, N, d)."""
        like, unused = self.model.likelihood, torch.Generator()
        terms = self.model.terms(x, shown, len(noise), noise=noise, generator=unused)
        weight = terms.log_weight.softmax(0).unsqueeze(-1)
        mean = (weight * like.mean(terms.parameter)).sum(0)
        truth = like.features(torch.where(mask.bool(), x, 0))
        hidden = (mask - shown)[:, like.feature_column.to(mask.device)]
        return ((mean - truth).square() * hidden).sum() / (mask - shown).sum().clamp_min(1)


def _hidden(model: MIWAE, x: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What a prediction of held-out rows reads."""
    x, mask = beside(model, x), beside(model, mask)
    noise = normal((codes_per_row(model, len(x)), len(x), model.latent_dim), generator, x)
    return x, mask, hidden_at_random(mask, generator), noise


def codes_per_row(model: MIWAE, rows: int) -> int:
    """How many codes of each row judge a state of a fit: fewer of many rows, and where classes make many parameters.

    Example:
        >>> [codes_per_row(MIWAE([("categorical", 1600)], 1, width=8), rows) for rows in (100, 1000, 10_000)]
        [50, 10, 5]
    """
    return min(CODES, max(FEWEST, CELLS // (rows * max(128, model.likelihood.n_parameters))))


def hidden_at_random(mask: Tensor, generator: torch.Generator) -> Tensor:
    """A mask (N, D) without a random part of its cells: of each row a share drawn from all shares alike.

    Example:
        >>> hidden_at_random(torch.ones(2, 3), torch.Generator().manual_seed(0)).sum(1)
        tensor([0., 1.])
    """
    share = uniform((len(mask), 1), generator, mask)
    return mask * (uniform(tuple(mask.shape), generator, mask) >= share)


def proposal_score(model: MIWAE, x: Tensor, shown: Tensor, terms: Terms) -> Tensor:
    r"""How well the encoder, shown a part of what is observed, proposes codes of all of it: (N,), nats.

    .. math:: \sum_k \bar w_k \log q(z_k | x_{shown}), \qquad z_k, \bar w_k \text{ as in the bound, held fixed}

    At its maximum q is the posterior of the shown cells, so that the encoder knows masks that the data do not have. The
    decoder is not touched.

    References:
        Reweighted wake-sleep (Bornschein and Bengio, 2015), https://arxiv.org/abs/1406.2751

    Example:
        >>> model, rng = MIWAE(["gaussian"] * 2, latent_dim=1, width=8), torch.Generator().manual_seed(0)
        >>> x, mask = torch.zeros(4, 2), torch.ones(4, 2)
        >>> proposal_score(model, x, mask, model.terms(x, mask, 5, generator=rng)).shape
        torch.Size([4])
    """
    mean, scale = model.posterior(x, shown)
    z, weight = terms.z.detach(), terms.log_weight.detach().softmax(0)
    log_q = -0.5 * ((z - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
    return (weight * log_q.sum(-1)).sum(0)
