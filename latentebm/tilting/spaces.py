"""The two spaces an energy can live in: how it is fitted, and what tilt it makes."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_choice, check_int, fail
from latentebm.models.data_energies import DataEnergy
from latentebm.models.data_tilts import DataTilt
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt, Tilt
from latentebm.models.vae import VAE
from latentebm.objectives.tilt_losses import calibrated
from latentebm.progress import Track
from latentebm.sampling.importance.weights import WeightSums
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.held_out import held_out_gain
from latentebm.tilting.reweight import cluster_weights, principal_scores
from latentebm.tilting.sides import POSITIVES, Codes, Pictures, Sides
from latentebm.tilting.start import fit_start
from latentebm.training.fit import FitResult

__all__ = ["POSTERIORS", "SPACES", "FittedTilt", "Space", "SpaceDefaults"]

POSTERIORS = ("draws", "means")
# Bounds of the log-ratios, in nats; the Jensen optimum is bounded by its penalty.
LIMITS = {"latent": 4.0, "data": 3.0}
FEW, CLUSTERS = 1000, 20  # below FEW reference images the tilt starts from CLUSTERS soft clusters
# Its bounds, the widest first: where codes lie much farther out than the prior, the tail of the weights is too heavy.
START_LIMITS, CHECKED = (4.0, 2.0), 100_000
# Peak learning rates of the start, and of what then refines it: a step as large as the start's would undo it.
START_LR, REFINING_LR = 1e-2, 1e-3


@dataclass(frozen=True)
class SpaceDefaults:
    """What a space takes where a setting is None, and how large its batches are.

    Attributes:
        folds: ensemble members.
        tilt_steps: most optimizer steps.
        pool: base draws of SNIS.
        weighed: base draws of a check of the weights.
        recipe: batch sizes, chains and learning rate.

    Example:
        >>> SPACES["data"].folds
        3
    """

    folds: int
    tilt_steps: int
    pool: int
    weighed: int
    recipe: dict[str, Any]


SPACES = {
    "latent": SpaceDefaults(5, 1500, 1_000_000, 200_000, {}),
    # An image costs some hundred times what a code does.
    "data": SpaceDefaults(
        3, 400, 100_000, 50_000, {"batch": 128, "base_batch": 512, "lr": 3e-3, "held_out": 6_000, "chain_steps": 5}
    ),
}
CHAINS = 64  # of each member in data space, where every step decodes
SAMPLED = {"latent": 512, "data": 64}  # draws of each member's learned sampler a step


class FittedTilt(NamedTuple):
    """An energy, the record of its fit, and its cross-validated gain in nats an image."""

    energy: EnergyNet | DataEnergy
    log: FitResult
    gain: float


@dataclass(frozen=True, kw_only=True)
class Space:
    """Where and how a `Debiaser` fits its energy; the fields mean the same there.

    Raises:
        ValueError: a setting outside its range, or settings of the two spaces that don't go together.

    Example:
        >>> settings = {"objective": "nce", "energy_penalty": 0.25, "gradient_penalty": 0.0, "calibrate": False}
        >>> choices = {"space": "data", "positives": "raw", "negatives": "persistent", "posterior": "draws"}
        >>> Space(**settings, **choices, folds=None, clusters=None, tilt_steps=None).members
        3
    """

    space: str
    positives: str
    objective: str
    negatives: str
    energy_penalty: float
    gradient_penalty: float
    calibrate: bool
    posterior: str
    folds: int | None
    clusters: int | None
    tilt_steps: int | None

    def __post_init__(self) -> None:
        check_choice("space", self.space, SPACES)
        check_choice("positives", self.positives, POSITIVES)
        check_int("folds", self.members)
        if self.clusters is not None:
            check_int("clusters", self.clusters, low=0)
        recipe = self.recipe()
        for name, value, usual, needs, given in (
            ("positives", self.positives, "reconstructed", "space=data", self.space == "data"),
            ("clusters", self.clusters or None, None, "space=latent", self.space == "latent"),
            ("negatives", self.negatives, "persistent", "objective=contrastive", recipe.objective == "contrastive"),
            ("calibrate", self.calibrate, False, "objective=jensen", recipe.objective == "jensen"),
            ("energy_penalty", self.energy_penalty, 0.25, "objective=jensen", recipe.objective == "jensen"),
        ):
            if value != usual and not given:
                raise fail(name, f"{usual or 'none'} unless {needs}", repr(value), f"pass {needs} or leave it out")
        for name, value, wanted in (("space", self.space, "latent"), ("posterior", self.posterior, "draws")):
            if self.objective == "score" and value != wanted:
                raise fail(name, f"{wanted} with objective=score", repr(value), "its noise is the posterior's own")

    @property
    def members(self) -> int:
        """Ensemble size."""
        return SPACES[self.space].folds if self.folds is None else self.folds

    def recipe(self) -> TiltRecipe:
        """Objective and optimizer settings.

        Raises:
            ValueError: a setting lies outside its range.
        """
        usual = SPACES[self.space]
        sizes = dict(usual.recipe)
        if self.space == "data" and self.objective == "contrastive":
            sizes["base_batch"] = CHAINS
        elif self.objective == "amortized":
            sizes["base_batch"] = SAMPLED[self.space]
        return TiltRecipe(
            objective=self.objective,
            negatives=self.negatives,
            energy_penalty=self.energy_penalty,
            gradient_penalty=self.gradient_penalty,
            steps=usual.tilt_steps if self.tilt_steps is None else self.tilt_steps,
            **sizes,
        )

    def fit(self, vae: VAE, images: Tensor, biased: Tensor, *, generator: torch.Generator, track: Track) -> FittedTilt:
        """Fit an energy to reference images (N, C, H, W), uint8, of a frozen VAE of the biased (M, C, H, W)."""
        recipe = self.recipe()
        codes, members = self._codes(vae, images, generator), min(self.members, len(images))
        if clusters := self._clusters(len(images)):
            known: dict[str, Any] = {"generator": generator, "track": track}
            weight = self._weight(images, biased, codes.fold, clusters=clusters, members=members, **known)
            energy: EnergyNet | DataEnergy = self._start(vae, biased, weight, members, **known)
            recipe = dataclasses.replace(recipe, lr=REFINING_LR)
        else:
            # The weights are drawn on the CPU: a seed means the same on every device.
            energy = self._energy(vae, members, generator).to(codes.mean.device)
        tilt = self.tilt(vae, energy)
        sides = self._sides(tilt, images, codes, generator)
        log = fit_energy(energy, sides, recipe, generator=generator, track=track)
        energy.requires_grad_(False)
        gain = held_out_gain(energy, sides, self._transform(), draws=recipe.held_out, generator=generator)
        return FittedTilt(energy, log, gain)

    def tilt(self, vae: VAE, energy: nn.Module) -> Tilt:
        """The tilted model of an energy."""
        if self.space == "latent":
            return LatentTilt(vae, energy, self._transform())
        return DataTilt(vae, energy, self._transform(), noise=self.positives == "raw")

    def build(self, config: dict[str, Any]) -> EnergyNet | DataEnergy:
        """An energy of a saved shape, its weights not yet loaded."""
        return EnergyNet.from_config(config) if self.space == "latent" else DataEnergy.from_config(config)

    def reference_energy(self, tilt: Tilt, images: Tensor, generator: torch.Generator) -> Tensor:
        """Energies (N,) of one reference draw of each image (N, C, H, W), uint8, nats."""
        vae = cast(VAE, tilt.model)
        sides = self._sides(tilt, images, self._codes(vae, images, generator), generator, decoded=1)
        with torch.no_grad():
            points = sides.draw(torch.arange(len(images)), generator)
            if isinstance(tilt, DataTilt):
                return torch.cat([tilt.data_energy(part) for part in points.split(4096)])
            return tilt.energy(points)

    def _codes(self, vae: VAE, images: Tensor, generator: torch.Generator) -> Codes:
        device = next(vae.parameters()).device
        with torch.no_grad():
            laws = [vae.posterior(part.to(device).float() / 255).base_dist for part in images.split(4096)]
        mean, scale = torch.cat([q.loc for q in laws]), torch.cat([q.scale for q in laws])
        scale = scale if self.posterior == "draws" else torch.zeros_like(scale)
        return Codes.split(mean, scale, self.members, generator)

    def _sides(self, tilt: Tilt, images: Tensor, codes: Codes, generator: torch.Generator, **sizes: int) -> Sides:
        if not isinstance(tilt, DataTilt):
            return codes
        if self.positives == "raw":
            return Pictures.raw(tilt, images.to(codes.mean.device).float() / 255, codes, generator=generator, **sizes)
        return Pictures.reconstruct(tilt, codes, generator=generator, **sizes)

    def _clusters(self, references: int) -> int:
        """Clusters of the start, 0 for none."""
        if self.space != "latent" or self.objective != "likelihood":
            return 0
        few = CLUSTERS if references < FEW else 0
        return few if self.clusters is None else self.clusters

    def _weight(self, images: Tensor, biased: Tensor, fold: Tensor, **settings: Any) -> Tensor:
        """Weights (M,) of the biased images, as the reference says; each clustering leaves out a fold of it."""
        scores = principal_scores(biased, images, generator=settings["generator"])
        return cluster_weights(*scores, fold.cpu(), **settings).mean(0)

    def _start(
        self, vae: VAE, biased: Tensor, weight: Tensor, members: int, *, generator: torch.Generator, track: Track
    ) -> EnergyNet:
        """The tilt of weighted biased images under the widest bound with reliable importance weights."""
        codes, recipe = self._codes(vae, biased, generator), dataclasses.replace(self.recipe(), lr=START_LR)
        for limit in START_LIMITS:
            energy = EnergyNet(vae.latent_dim, members=members, limit=limit).to(codes.mean.device)
            fit_start(energy, codes, weight, recipe, generator=generator, track=track)
            sums = WeightSums(CHECKED)
            with torch.no_grad():
                for part in codes.base(CHECKED, generator).split(16_384):
                    sums.add(-energy(part))
            if sums.report()["reliable"]:
                break
        return energy

    def _energy(self, vae: VAE, members: int, generator: torch.Generator) -> EnergyNet | DataEnergy:
        # Raw images need no bound: it would hide that the two sides have different supports.
        bounded = self.objective != "jensen" and self.positives != "raw"
        limit = LIMITS[self.space] if bounded else None
        if self.space == "data":
            return DataEnergy(vae.data_shape, members=members, limit=limit, generator=generator)
        return EnergyNet(vae.latent_dim, members=members, limit=limit, generator=generator)

    def _transform(self) -> functools.partial[Tensor] | None:
        if self.objective == "jensen" and self.calibrate:
            return functools.partial(calibrated, energy_penalty=self.energy_penalty)
        return None
