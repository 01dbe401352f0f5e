"""Fit a MIWAE or not-MIWAE to incomplete rows held in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.data.batches import Minibatches
from latentebm.devices import beside
from latentebm.missing.bound import Terms, iwae_bound
from latentebm.missing.miwae import MIWAE, check_rows
from latentebm.progress import Track, silent
from latentebm.rng import child, normal, permutation, uniform
from latentebm.training.fit import FitResult, fit
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["MIWAERecipe", "bound_loss", "fit_miwae", "hidden_at_random", "proposal_score"]


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

    validate = None if held_out is None else _Prediction(model, *held_out, generator=child(generator))
    model.train()
    result = fit(
        model, loss, batches, recipe, validate=validate, every=max(1, len(batches) // 20), state=[generator],
        track=track, description="MIWAE",
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


class _Prediction:
    r"""Mean of :math:`-\log p(x_{hidden} | x_{shown})` over held-out rows, by the same codes' noise each time."""

    def __init__(self, model: MIWAE, x: Tensor, mask: Tensor, *, generator: torch.Generator) -> None:
        self.model, self.x, self.mask = model, beside(model, x), beside(model, mask)
        self.shown = hidden_at_random(self.mask, generator)
        self.noise = normal((100, len(x), model.latent_dim), generator, self.x)
        self.generator = generator

    def __call__(self) -> Tensor:
        model, hidden = self.model, self.mask - self.shown
        terms = model.terms(self.x, self.shown, len(self.noise), noise=self.noise, generator=self.generator)
        filled = torch.where(self.mask.bool(), self.x, 0)
        cells = (model.likelihood.log_prob(filled, terms.parameter) * hidden).sum(-1)
        return -(iwae_bound(terms.log_weight + cells) - iwae_bound(terms.log_weight)).mean()


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
