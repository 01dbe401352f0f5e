"""Debias a MIWAE fitted to rows missing not at random, by tilting it with a few rows missing at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, fail
from latentebm.devices import device_of
from latentebm.missing.bound import Terms
from latentebm.missing.imputation import Imputation, impute
from latentebm.missing.miwae import MIWAE
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt
from latentebm.progress import Track, silent
from latentebm.rng import integers, normal, weighted_rows
from latentebm.sampling.importance.weights import ess, normalised
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.objectives import Objective
from latentebm.tilting.sides import assign_folds
from latentebm.training.logs import Log

__all__ = ["MIWAETilt", "tilt_miwae"]

SPACES = {"latent": False, "data": True}  # whether the energy reads the rows; in place of their codes


@dataclass(frozen=True)
class MIWAETilt:
    r"""A MIWAE whose latent prior, or whose distribution of complete rows, is tilted by an energy.

    .. math:: p_E(z) \propto e^{-E(z)}\,p_0(z) \quad\text{or}\quad p_E(x) \propto e^{-E(x)}\,p_\theta(x)

    Example:
        >>> model, rng = MIWAE(["gaussian"], 1, width=8), torch.Generator().manual_seed(0)
        >>> rows, ess = MIWAETilt(model, EnergyNet(1), "latent").sample(5, pool=10, generator=rng)
        >>> rows.shape, round(ess, 4)  # a new energy is zero everywhere: all draws weigh the same
        (torch.Size([5, 1]), 1.0)
    """

    model: MIWAE  # never changed
    energy: EnergyNet  # ensemble over latents (d) or row features (F), in nats, low = probable
    space: str  # ``latent`` or ``data``

    def of_terms(self, terms: Terms) -> Tensor:
        """Energies (K, N) of posterior draws, nats."""
        points = terms.completed if SPACES[self.space] else terms.z
        return self.energy(points.flatten(0, 1)).reshape(points.shape[:2])

    def impute(
        self, x: Tensor, mask: Tensor, *, draws: int = 1000, multiple: int = 0, generator: torch.Generator,
        track: Track = silent,
    ) -> Imputation:  # fmt: skip
        """Impute under the tilted model; arguments and errors as :func:`impute`."""
        tilt: dict[str, Any] = {"energy": self.of_terms, "of_rows": SPACES[self.space]}
        return impute(self.model, x, mask, draws=draws, multiple=multiple, generator=generator, track=track, **tilt)

    def latent_tilt(self) -> LatentTilt:
        """The tilt as a target of the samplers; ValueError where it lies in data space."""
        if SPACES[self.space]:
            raise fail("space", "a latent tilt", self.space, "call sample, which serves both spaces")
        return LatentTilt(self.model, self.energy)

    @torch.no_grad()
    def sample(self, n: int, *, pool: int = 50_000, generator: torch.Generator) -> tuple[Tensor, float]:
        """Rows (n, D) by SNIS from a pool of the model's own, and the effective share of the pool, in (0, 1]."""
        z = _prior(self.model, check_int("pool", pool), generator)
        features = self.model.draw_features(z, generator)
        log_weight = -self.energy(features if SPACES[self.space] else z)
        share = normalised(log_weight)
        rows = weighted_rows(share, check_int("n", n), generator)
        return self.model.likelihood.point(features[rows]), float(ess(log_weight))


def tilt_miwae(
    model: MIWAE,
    x: Tensor,
    mask: Tensor,
    *,
    space: Literal["latent", "data"] = "latent",
    positives: Literal["completed", "generated"] = "completed",
    members: int = 5,
    rounds: int = 2,
    copies: int = 50,
    draws: int = 1000,
    recipe: TiltRecipe | None = None,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> MIWAETilt:
    r"""Fit the tilt of a MIWAE to a small reference set whose cells are missing at random, or completely so.

    .. math:: \max_E\; \mathrm{mean}_i\, \log p_E(x_{i,obs}) = \mathrm{mean}_i\,
              \log \int e^{-E}\, p_\theta(x_{i,obs}, z)\,dz - \log Z

    by EM: each round completes the reference rows under the present tilt, by SNIS, and fits a new ensemble to the
    draws: latents z ~ p_E(z | x_obs), or, in data space, rows x ~ p_E(x | x_obs) that keep the reference's own cells.
    Every member is validated on its own fold of rows.

    Arguments:
        model: fitted MIWAE; frozen.
        x, mask: reference values and 1 = observed, (N, D).
        space: ``latent`` or ``data``.
        positives: of a data tilt: ``completed`` rows, or rows ``generated`` from their latents, for a model whose
            rows differ from real ones in more than the bias.
        members: ensemble size, and folds.
        copies: posterior draws per row, chosen from `draws` importance draws.
        recipe: settings of the energy's fit; its objective is not score, nor contrastive or amortized in data space.
        generator: source of all draws (CPU).

    References:
        Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster, Laird and Rubin, 1977)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> model = MIWAE(["gaussian"] * 2, 1, width=8)
        >>> tilt = tilt_miwae(model, torch.randn(20, 2, generator=rng), torch.ones(20, 2), members=2, rounds=1,
        ...                   copies=5, draws=50, recipe=TiltRecipe(steps=20), generator=rng)
        >>> tilt.sample(3, pool=100, generator=rng)[0].shape
        torch.Size([3, 2])
    """
    recipe = recipe or TiltRecipe()
    _check(x, space, positives, recipe)
    check_int("rounds", rounds)
    fold = assign_folds(len(x), members, generator)
    of_rows = SPACES[space]
    dim = model.likelihood.n_features if of_rows else model.latent_dim
    none = EnergyNet(dim).to(device_of(model)).requires_grad_(False)  # no tilt yet: zero everywhere
    tilt = MIWAETilt(model, none, space)
    for _ in range(rounds):
        done = tilt.impute(x, mask, draws=draws, multiple=copies, generator=generator, track=track)
        energy = EnergyNet(dim, members=members, generator=generator).to(device_of(model))
        positive = _reference(model, done, positives, generator) if of_rows else done.latent
        sides = _Sides(model, of_rows, positive, fold)
        fit_energy(energy, sides, recipe, generator=generator, track=track, log=log)
        tilt = MIWAETilt(model, energy.requires_grad_(False), space)
    return tilt


def _check(x: Tensor, space: str, positives: str, recipe: TiltRecipe) -> None:
    check_choice("space", space, SPACES)
    check_choice("positives", positives, ("completed", "generated"))
    if len(x) < 2:
        raise fail("reference", "at least 2 rows", len(x), "pass more reference rows")
    # Score matching needs the posterior's spread; chains and learned samplers would move codes, not rows.
    objective = cast(Objective, recipe.objective)
    if objective.of_posteriors or (objective.own_negatives and SPACES[space]):
        fix = 'pass recipe=TiltRecipe(objective="likelihood")'
        got = type(objective).__name__.lower()
        raise fail("objective", f"likelihood, jensen or nce in {space} space", got, fix)


def _prior(model: MIWAE, n: int, generator: torch.Generator) -> Tensor:
    return normal((n, model.latent_dim), generator, next(model.parameters()))


def _reference(model: MIWAE, done: Imputation, positives: str, generator: torch.Generator) -> Tensor:
    """Rows that stand for the reference, (copies, N, F): completed ones, or ones generated from their latents."""
    if positives == "completed":
        return model.likelihood.features(done.draws)
    return model.draw_features(done.latent, generator)


@dataclass(frozen=True)
class _Sides:
    """Reference draws (copies, N, ·) and the model's own, as :func:`fit_energy` takes them."""

    model: MIWAE
    of_rows: bool
    positive: Tensor
    fold: Tensor

    @property
    def dim(self) -> int:
        return self.model.latent_dim

    @property
    def normal(self) -> bool:
        return True  # of the chains that `decode` speaks of

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.positive[integers(len(self.positive), rows.shape, generator, rows.device), rows]

    def base(self, k: int, generator: torch.Generator, *, held_out: bool = False) -> Tensor:
        z = _prior(self.model, k, generator)
        return self.model.draw_features(z, generator) if self.of_rows else z

    def decode(self, u: Tensor) -> Tensor:
        return u  # asked by chains and learned samplers only, which move codes
