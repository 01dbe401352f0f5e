"""The two spaces an energy can live in: their defaults, the sides it is fitted on, and the tilt it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_choice, check_int, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.base.mixture_prior import learned_prior
from latentebm.models.data_energies import DataEnergy
from latentebm.models.data_tilts import DataTilt
from latentebm.models.energies import EnergyNet, EnsembleEnergy
from latentebm.models.mixture_energy import MixtureEnergy
from latentebm.models.tilts import LatentTilt
from latentebm.models.vae import VAE
from latentebm.registry import Registry
from latentebm.tilting.fit_tilt import TiltRecipe
from latentebm.tilting.objectives import Objective
from latentebm.tilting.sides import POSITIVES, Codes, Pictures, Sides

__all__ = ["SPACES", "DataSpace", "LatentSpace", "Space"]

POSTERIORS = ("draws", "means")
FEW, CLUSTERS = 1000, 20  # below FEW reference images the tilt starts from CLUSTERS soft clusters
Transform = Callable[[Tensor], Tensor] | None


@dataclass(frozen=True, kw_only=True)
class Space(ABC):
    """Where an energy lives, and how large its fit and its draws are there.

    Attributes:
        posterior: fit on posterior ``draws`` or on the ``means`` alone.
        folds: ensemble members, each fitted without its own fold of the reference.
        steps: most optimizer steps.
        limit: bound of each member's energy, in nats; None for none.
        pool: base draws of SNIS.
        weighed: base draws of a check of the weights.

    """

    posterior: Literal["draws", "means"] = "draws"
    folds: int
    steps: int
    limit: float | None
    pool: int
    weighed: int
    sizes: ClassVar[dict[str, Any]] = {}  # of the recipe, where they differ from its defaults

    def __post_init__(self) -> None:
        check_choice("posterior", self.posterior, POSTERIORS)
        for name in ("folds", "steps", "pool", "weighed"):
            check_int(name, getattr(self, name))

    @abstractmethod
    def energy(self, vae: VAE, members: int, limit: float | None, generator: torch.Generator) -> EnsembleEnergy:
        """A new energy of the space's own make."""

    @abstractmethod
    def restored(self, config: dict[str, Any]) -> EnsembleEnergy:
        """An energy of a saved shape, its weights not yet loaded."""

    @abstractmethod
    def event_shape(self, vae: VAE) -> tuple[int, ...]:
        """Shape of what the energy reads."""

    @abstractmethod
    def tilt(self, vae: VAE, energy: nn.Module, transform: Transform) -> Tilt:
        """The tilted model of an energy."""

    @abstractmethod
    def sides(self, tilt: Tilt, images: Tensor, codes: Codes, generator: torch.Generator, **sizes: int) -> Sides:
        """Reference and base draws for the energy of a tilt."""

    @abstractmethod
    def read(self, tilt: Tilt, points: Tensor) -> Tensor:
        """Energies (N,) of what the sides draw, in nats."""

    def check(self, objective: Objective) -> None:  # noqa: B027 - a space may suit all objectives
        """Refuse an objective that does not suit the space."""

    def start_clusters(self, objective: Objective, references: int, *, views: bool = False) -> int:
        """Clusters of the biased images that a first tilt reweights, or its views replace; 0 for no first tilt."""
        return 0

    def by_shares(self, objective: Objective) -> bool:
        """Whether over a learned prior the energy is one of its normals' shares."""
        return False

    def recipe(self, objective: Objective, gradient_penalty: float) -> TiltRecipe:
        """How the energy is fitted here."""
        sizes = {**self.sizes, "steps": self.steps, "gradient_penalty": gradient_penalty}
        return TiltRecipe(objective=objective, **sizes)

    def codes(self, vae: VAE, images: Tensor, generator: torch.Generator) -> Codes:
        """Posterior distributions of images (N, C, H, W), uint8, and the fold of each."""
        like = next(vae.parameters())
        with torch.no_grad():
            parts = images.split(chunk_size(images[0].numel(), like.device))
            moments = [vae.moments(part.to(like.device).float() / 255) for part in parts]
        mean, scale = (torch.cat(both) for both in zip(*moments, strict=True))
        scale = scale if self.posterior == "draws" else torch.zeros_like(scale)
        return Codes.split(mean, scale, self.folds, generator, prior=learned_prior(vae))


@dataclass(frozen=True, kw_only=True)
class LatentSpace(Space):
    """The energy reads the code; its fields are those of `Space`, and one more.

    Attributes:
        clusters: of the biased images, whose shares a first tilt sets to the reference's; 0 for no first tilt. None
            takes 20 below 1,000 reference images, and `fit_shares` over a learned prior.

    Example:
        >>> LatentSpace(folds=3).pool
        1000000
    """

    folds: int = 5
    steps: int = 1500
    limit: float | None = 4.0
    pool: int = 1_000_000
    weighed: int = 200_000
    clusters: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters is not None:
            check_int("clusters", self.clusters, low=0)

    def energy(self, vae: VAE, members: int, limit: float | None, generator: torch.Generator) -> EnergyNet:
        """Perceptrons of the code."""
        return EnergyNet(vae.latent_dim, members=members, limit=limit, generator=generator)

    def restored(self, config: dict[str, Any]) -> EnsembleEnergy:
        """An energy of a saved shape, its weights not yet loaded."""
        return (MixtureEnergy if "components" in config else EnergyNet).from_config(config)

    def event_shape(self, vae: VAE) -> tuple[int, ...]:
        """Shape (d,) of a code."""
        return (vae.latent_dim,)

    def tilt(self, vae: VAE, energy: nn.Module, transform: Transform) -> LatentTilt:
        """The tilted prior."""
        return LatentTilt(vae, energy, transform)

    def sides(self, tilt: Tilt, images: Tensor, codes: Codes, generator: torch.Generator, **sizes: int) -> Codes:
        """The codes themselves."""
        return codes

    def read(self, tilt: Tilt, points: Tensor) -> Tensor:
        """Energies (N,) of codes (N, d)."""
        return tilt.energy(points)

    def check(self, objective: Objective) -> None:
        """Refuse score matching of posterior means, which have no spread."""
        if objective.of_posteriors and self.posterior != "draws":
            fix = "its noise is the posterior's own"
            raise fail("posterior", "draws with objective=score", repr(self.posterior), fix)

    def start_clusters(self, objective: Objective, references: int, *, views: bool = False) -> int:
        """Clusters of the start: those asked for, or what few reference images, or any number of views, need."""
        if not objective.from_clusters:
            return 0
        few = CLUSTERS if views or references < FEW else 0
        return few if self.clusters is None else self.clusters

    def by_shares(self, objective: Objective) -> bool:
        """Whether nothing else is asked for than the likelihood."""
        return objective.from_clusters and self.clusters is None


@dataclass(frozen=True, kw_only=True)
class DataSpace(Space):
    """The energy reads the decoded data, some hundred times the work of a code; the fields of `Space`, and one more.

    Attributes:
        positives: the reference ``reconstructed`` by the VAE, or ``raw`` with observation noise on both sides, whose
            weights collapse wherever the VAE's images and real ones differ.

    Example:
        >>> DataSpace().folds
        3
    """

    folds: int = 3
    steps: int = 400
    limit: float | None = 3.0
    pool: int = 100_000
    weighed: int = 50_000
    positives: Literal["reconstructed", "raw"] = "reconstructed"
    sizes: ClassVar[dict[str, Any]] = {
        "batch": 128,
        "base_batch": 512,
        "lr": 3e-3,
        "held_out": 6_000,
        "chains": 64,
        "chain_steps": 5,
        "sampler_draws": 64,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("positives", self.positives, POSITIVES)

    @property
    def raw(self) -> bool:
        """Whether the positives are real images as they are."""
        return self.positives == "raw"

    def energy(self, vae: VAE, members: int, limit: float | None, generator: torch.Generator) -> DataEnergy:
        """Convnets of the image; of raw images without a bound, which would hide that the supports differ."""
        return DataEnergy(vae.data_shape, members=members, limit=None if self.raw else limit, generator=generator)

    def restored(self, config: dict[str, Any]) -> DataEnergy:
        """An energy of a saved shape, its weights not yet loaded."""
        return DataEnergy.from_config(config)

    def event_shape(self, vae: VAE) -> tuple[int, ...]:
        """Shape of an image."""
        return vae.data_shape

    def tilt(self, vae: VAE, energy: nn.Module, transform: Transform) -> DataTilt:
        """The tilted distribution of the data."""
        return DataTilt(vae, energy, transform, noise=self.raw)

    def sides(self, tilt: Tilt, images: Tensor, codes: Codes, generator: torch.Generator, **sizes: int) -> Pictures:
        """Images of both sides."""
        if not isinstance(tilt, DataTilt):
            raise fail("tilt", "a DataTilt", type(tilt).__name__, "make it by this space's tilt")
        if self.raw:
            real = images.to(codes.mean.device).float() / 255
            return Pictures.raw(tilt, real, codes, generator=generator, **sizes)
        return Pictures.reconstruct(tilt, codes, generator=generator, **sizes)

    def read(self, tilt: Tilt, points: Tensor) -> Tensor:
        """Energies (N,) of images (N, *data_shape)."""
        return in_chunks(cast(DataTilt, tilt).data_energy, points)

    def check(self, objective: Objective) -> None:
        """Refuse score matching, which needs codes."""
        if objective.of_posteriors:
            raise fail("space", "latent with objective=score", "'data'", "its noise is the posterior's own")


SPACES = Registry("space", {"latent": LatentSpace, "data": DataSpace}, Space)
