"""Debias a MIWAE fitted to data missing not at random, by tilting it with a small set missing at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, fail
from latentebm.imputation.snis import Imputation, impute
from latentebm.models.energy import EnergyNet
from latentebm.models.miwae import MIWAE, Terms
from latentebm.models.tilt import LatentTilt
from latentebm.objectives.tilt import likelihood_loss
from latentebm.progress import Track, silent
from latentebm.training.energy import TiltRecipe, fit_energy
from latentebm.training.fit import fit
from latentebm.training.positives import Codes

__all__ = ["SPACES", "MIWAETilt", "tilt_miwae"]

SPACES = ("latent", "data")


@dataclass(frozen=True)
class MIWAETilt:
    r"""A MIWAE whose latent prior, or whose law of complete rows, is tilted by an energy.

    .. math:: p_E(z) \propto e^{-E(z)}\,p_0(z) \quad\text{or}\quad p_E(x) \propto e^{-E(x)}\,p_\theta(x)

    Attributes:
        model: the MIWAE, never changed.
        energy: ensemble over latents (d) or row features (F).
        space: ``latent`` or ``data``.

    Example:
        >>> tilt = MIWAETilt(MIWAE(["gaussian"], 1, width=8), EnergyNet(1), "latent")
        >>> tilt.latent_tilt().dim
        1
    """

    model: MIWAE
    energy: EnergyNet
    space: str

    def of_terms(self, terms: Terms) -> Tensor:
        """Energies (K, N) of posterior draws, nats."""
        points = terms.z if self.space == "latent" else terms.completed
        return self.energy(points.flatten(0, 1)).reshape(points.shape[:2])

    def impute(
        self, x: Tensor, mask: Tensor, *, draws: int = 1000, multiple: int = 0, generator: torch.Generator
    ) -> Imputation:
        """Impute under the tilted model; arguments as :func:`impute`.

        Raises:
            ValueError: shapes disagree, or no draws are asked for.
        """
        return impute(
            self.model, x, mask, draws=draws, multiple=multiple, energy=self.of_terms, of_rows=self.space == "data",
            generator=generator,
        )  # fmt: skip

    def latent_tilt(self) -> LatentTilt:
        """The tilt as a sampler's target, for generating rows.

        Raises:
            ValueError: the tilt lies in data space.
        """
        if self.space != "latent":
            raise fail("space", "a latent tilt", self.space, "call sample, which serves both")
        return LatentTilt(self.model, self.energy)

    @torch.no_grad()
    def sample(self, n: int, *, pool: int = 50_000, generator: torch.Generator) -> tuple[Tensor, float]:
        """Generate n rows (n, D) by SNIS from a pool of the model's own, and say the relative effective sample size.

        Raises:
            ValueError: n or the pool is below 1.
        """
        z = torch.randn(check_int("pool", pool), self.model.latent_dim, generator=generator)
        features = self.model.likelihood.sample(self.model.decoder(z), generator)
        log_weight = -self.energy(z if self.space == "latent" else features)
        share = log_weight.softmax(0)
        rows = torch.multinomial(share, check_int("n", n), replacement=True, generator=generator)
        return self.model.likelihood.point(features[rows]), float(1 / (share.square().sum() * pool))


def tilt_miwae(
    model: MIWAE,
    x: Tensor,
    mask: Tensor,
    *,
    space: str = "latent",
    members: int = 5,
    rounds: int = 2,
    copies: int = 50,
    draws: int = 1000,
    recipe: TiltRecipe | None = None,
    generator: torch.Generator,
    track: Track = silent,
) -> MIWAETilt:
    r"""Fit the tilt of a MIWAE to a small reference set whose cells are missing (completely) at random.

    .. math:: \max_E\; -\mathrm{mean}_i\, \mathrm{E}_{p_E(z|x_{i,obs})}[E(z)] - \log Z

    Each round draws the reference rows' latents under the present tilt, by SNIS, and fits a fresh
    ensemble to them: the expectation and maximisation steps of EM. In data space the rows are generated from those
    latents, so that both sides are the model's own. Every member is held to its own fold of rows.

    Arguments:
        model: fitted MIWAE; frozen.
        x: reference values (N, D).
        mask: 1 = observed, (N, D).
        space: ``latent`` or ``data``.
        members: ensemble size, and folds.
        rounds: of EM.
        copies: posterior draws a row.
        draws: importance draws a row they are chosen from.
        recipe: settings of the energy's fit.
        generator: source of all draws (CPU).
        track: shows progress.

    Raises:
        ValueError: fewer than two rows, shapes that disagree, or an unknown space.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> model = MIWAE(["gaussian"] * 2, 1, width=8)
        >>> tilt = tilt_miwae(model, torch.randn(20, 2, generator=rng), torch.ones(20, 2), members=2, rounds=1,
        ...                   copies=5, draws=50, recipe=TiltRecipe(steps=20), generator=rng)
        >>> tilt.sample(3, pool=100, generator=rng)[0].shape
        torch.Size([3, 2])
    """
    check_choice("space", space, SPACES)
    if len(x) < 2:
        raise fail("reference", "at least 2 rows", len(x), "pass more reference rows")
    recipe = recipe or TiltRecipe()
    tilt: MIWAETilt | None = None
    for _ in range(check_int("rounds", rounds)):
        done = impute(
            model, x, mask, draws=draws, multiple=copies, energy=tilt.of_terms if tilt else None, generator=generator
        )  # fmt: skip
        points = done.latent if space == "latent" else _generated(model, done.latent, generator)
        energy = EnergyNet(points.shape[-1], members=members, generator=generator)
        train = _fit_latent if space == "latent" else _data_fitter(model)
        train(energy, points.detach(), recipe, generator, track)
        tilt = MIWAETilt(model, energy.requires_grad_(False), space)
    if tilt is None:
        raise RuntimeError("no round was run")
    return tilt


@torch.no_grad()
def _generated(model: MIWAE, z: Tensor, generator: torch.Generator) -> Tensor:
    """Features of rows drawn from p(x | z): real rows beside these would be told apart by what the model misses."""
    return model.likelihood.sample(model.decoder(z), generator)


def _folds(rows: int, copies: int, members: int, generator: torch.Generator) -> Tensor:
    """Fold of each point: copies of one row stay together."""
    fold = torch.randperm(rows, generator=generator) % min(5 if members == 1 else members, rows)
    return fold.repeat(copies)


def _fit_latent(
    energy: EnergyNet, points: Tensor, recipe: TiltRecipe, generator: torch.Generator, track: Track
) -> None:
    copies, rows, _ = points.shape
    z = points.flatten(0, 1)
    codes = Codes(z, torch.zeros_like(z), _folds(rows, copies, energy.n_members, generator))
    fit_energy(energy, codes, recipe, generator=generator, track=track)


def _data_fitter(model: MIWAE) -> Callable[[EnergyNet, Tensor, TiltRecipe, torch.Generator, Track], None]:
    """As the latent fit, the base draws being rows the model generates."""

    def base(k: int, generator: torch.Generator) -> Tensor:
        return _generated(model, torch.randn(k, model.latent_dim, generator=generator), generator)

    def train(energy: EnergyNet, points: Tensor, recipe: TiltRecipe, generator: torch.Generator, track: Track) -> None:
        copies, rows, _ = points.shape
        x, members = points.flatten(0, 1), energy.n_members
        fold = _folds(rows, copies, members, generator)
        kept = [torch.nonzero(fold != m).flatten() for m in range(members)]
        held, base_held = [x[fold == m] for m in range(members)], base(20_000, generator)

        def loss(step: int) -> Tensor:
            picks = [r[torch.randint(len(r), (recipe.batch,), generator=generator)] for r in kept]
            reference = energy.members(x[torch.stack(picks)])
            return likelihood_loss(reference, energy.members(base(recipe.base_batch, generator))).sum()

        def validate() -> Tensor:
            on_base = energy.members(base_held)
            return torch.stack([likelihood_loss(energy.members(h)[m], on_base[m]) for m, h in enumerate(held)])

        fit(
            energy, loss, range(recipe.steps), lr=recipe.lr, weight_decay=recipe.weight_decay, validate=validate,
            every=recipe.every, patience=recipe.patience, track=track, description="energy",
        )  # fmt: skip

    return train
