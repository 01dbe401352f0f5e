"""Fit a normalising flow to a tilt: afterwards a draw costs one pass, and its weight keeps it exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_finite, check_int, check_rng, fail
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.progress import Track, silent
from latentebm.rng import integers, permutation
from latentebm.sampling import SNIS, Sampler
from latentebm.tilting.baked_tilt import BakedTilt, spline_flow
from latentebm.training.fit import FitResult, fit
from latentebm.training.logs import Log, logged
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["BakeRecipe", "bake"]

HELD_OUT, MOST_HELD = 0.1, 4_096  # share of the codes that choose when to stop, and the most of them


@dataclass(frozen=True, kw_only=True)
class BakeRecipe(Optimisation):
    """How a flow is fitted to a tilt; the optimizer's settings are those of `Optimisation`."""

    lr: float = 4e-3
    schedule: Schedule = "cosine"
    clip: float | None = 5.0
    draws: int = 100_000  # codes drawn from the tilt, a tenth of which, 4,096 at most, are held out
    steps: int = 1_500  # at most
    batch_size: int = 512
    every: int = 100  # steps between validations
    patience: int = 5  # validations without improvement before stopping


def bake(
    tilt: Tilt,
    *,
    flow: nn.Module | None = None,
    sampler: Sampler | None = None,
    recipe: BakeRecipe | None = None,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> BakedTilt:
    r"""Fit a normalising flow to draws of a tilt, by forward KL.

    .. math:: \min_q\; \mathrm{KL}(p_E \,\|\, q) = \min_q\; -E_{p_E}[\log q(u)] + \mathrm{const}

    Arguments:
        tilt: any tilt; it is not changed.
        flow: a module that returns a distribution over (dim,) when called, such as one of zuko's; it is fitted in
            place. None makes a `spline_flow`.
        sampler: draws the codes to fit to; None for SNIS from a pool ten times as large.
        recipe: sizes and optimizer settings; None for the defaults.

    Raises:
        ImportError: no flow was passed and zuko is not installed.
        ValueError: a flow of another dimension, or draws whose sampler calls them unreliable.
        DivergedError: the loss became NaN or infinite.

    References:
        Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021),
        https://arxiv.org/abs/1912.02762

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(nn.Identity(), 1), nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
        >>> g, recipe = torch.Generator().manual_seed(0), BakeRecipe(draws=4000, steps=150)
        >>> flow = spline_flow(1, transforms=2, hidden=(16,), generator=g)
        >>> baked = bake(tilt, flow=flow, recipe=recipe, generator=g)
        >>> draws = baked.draw(tilt, 2000, generator=g)
        >>> draws.diagnostics["ess"] > 0.8, abs(draws.diagnostics["log_z"] - 0.5) < 0.05
        (True, True)
    """
    check_rng(generator)
    recipe = recipe or BakeRecipe()
    check_int("draws", recipe.draws, low=20)
    if flow is None:
        flow = spline_flow(tilt.dim, generator=generator)
    like = next(tilt.parameters(), torch.empty(0))
    baked = BakedTilt(tilt, flow.to(like.device))
    drawn = (sampler or SNIS(pool=10 * recipe.draws)).draw(tilt, recipe.draws, generator=generator, track=track)
    if drawn.diagnostics.get("reliable") is False:
        got = f"ones that are not, of {drawn.diagnostics.get('sampler', 'sampler')}"
        raise fail("sampler", "reliable draws to fit to", got, "pass for example sampler=Langevin()")
    with logged(log):
        baked.log_ = _fitted(flow, check_finite("draws", drawn.latent), recipe, generator, track)
    flow.requires_grad_(False).eval()
    return baked


def _fitted(flow: nn.Module, u: Tensor, recipe: BakeRecipe, generator: torch.Generator, track: Track) -> FitResult:
    u = u[permutation(len(u), generator, u.device)]
    held = min(MOST_HELD, round(HELD_OUT * len(u)))

    def nats(batch: Tensor) -> Tensor:
        return cast(Tensor, -flow().log_prob(batch).mean())

    def loss(_: int) -> Tensor:
        return nats(u[held:][integers(len(u) - held, (recipe.batch_size,), generator, u.device)])

    return fit(
        flow,
        loss,
        range(recipe.steps),
        recipe,
        validate=lambda: nats(u[:held]),
        every=recipe.every,
        patience=recipe.patience,
        state=[generator],
        data=[u],
        track=track,
        description="flow",
    )
