"""One way of fitting a tilt to reference images: a space, an objective and an energy put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_number, fail
from latentebm.chunks import chunk_size
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.energies import Ensemble, EnsembleEnergy
from latentebm.models.vae import VAE
from latentebm.progress import Track
from latentebm.sampling.importance.weights import WeightSums
from latentebm.tilting.clusters.fit_shares import fit_shares
from latentebm.tilting.clusters.reweight import cluster_weights, principal_scores
from latentebm.tilting.clusters.start import fit_start
from latentebm.tilting.fit_tilt import fit_members
from latentebm.tilting.held_out import held_out_gain
from latentebm.tilting.objectives import Objective
from latentebm.tilting.sides import Codes
from latentebm.tilting.spaces import Space
from latentebm.training.fit import FitResult

__all__ = ["EnergyBuilder", "FittedTilt", "TiltMethod"]

EnergyBuilder = Callable[[tuple[int, ...]], nn.Module]
# Bounds of the start, widest first: where codes lie much farther out than the prior, the weights' tail is too heavy.
START_LIMITS, CHECKED = (4.0, 2.0), 100_000
# Codes of a sharper VAE are often just too far out for the widest: half of it would leave classes unbalanced.
VIEW_LIMITS = (4.0, 3.0, 2.0)
# Peak learning rates of the start, and of what then refines it: a step as large as the start's would undo it.
START_LR, REFINING_LR = 1e-2, 1e-3


class FittedTilt(NamedTuple):
    """An energy, the record of its fit, and its cross-validated gain in nats per image."""

    energy: EnsembleEnergy
    log: FitResult
    gain: float


@dataclass(frozen=True, kw_only=True)
class TiltMethod:
    """How a `Debiaser` fits its energy.

    Attributes:
        space: where the energy lives.
        objective: what it is fitted by.
        gradient_penalty: weight of its squared gradient norm.
        build: what makes one network of the energy, from the shape of its input; None takes the space's own.

    Raises:
        ValueError: an objective that does not suit the space, or a number outside its range.

    Example:
        >>> from latentebm.tilting.objectives import NCE
        >>> from latentebm.tilting.spaces import DataSpace
        >>> TiltMethod(space=DataSpace(steps=50), objective=NCE()).space.recipe(NCE(), 0.0).base_batch
        512
    """

    space: Space
    objective: Objective
    gradient_penalty: float = 0.0
    build: EnergyBuilder | None = None

    def __post_init__(self) -> None:
        check_number("gradient_penalty", self.gradient_penalty, low=0)
        self.space.check(self.objective)
        if self.build is not None and not callable(self.build):
            raise fail("energy", "a function that builds a network, or None", repr(self.build), "pass a callable")

    def fit(
        self,
        vae: VAE,
        images: Tensor,
        biased: Tensor,
        *,
        views: Tensor | None = None,
        generator: torch.Generator,
        track: Track,
    ) -> FittedTilt:
        """Fit an energy to reference images (N, C, H, W), uint8, of a frozen VAE of the biased (M, C, H, W).

        Changed copies of the reference, `views` (V, N, C, H, W), take its place as positives, each in its image's fold,
        and that of weighted biased images at the start: clusters underrate a class of which hardly any image is left.
        A reference of a VAE of biased images alone with a learned prior gives its normals other shares instead.
        """
        recipe = self.space.recipe(self.objective, self.gradient_penalty)
        codes, members = self.space.codes(vae, images, generator), min(self.space.folds, len(images))
        own = None if views is None else self._codes_of_views(vae, views, codes.fold, generator)
        clusters = self.space.start_clusters(self.objective, len(images), views=own is not None)
        known: dict[str, Any] = {"generator": generator, "track": track}
        start: tuple[Codes, Tensor] | None = None
        if clusters and own is not None:
            start = own, torch.ones(1, len(own.mean))
        elif clusters:
            weights = _weights(images, biased, codes.fold, clusters=clusters, members=members, **known)
            start = self.space.codes(vae, biased, generator), weights
        if own is None and self.by_shares and codes.prior is not None:
            return self._fit_shares(codes, members, start, generator)
        if start is not None:
            limits = START_LIMITS if own is None else VIEW_LIMITS
            energy = self._start(vae, start[0], start[1].mean(0), members, limits, **known)
            recipe = dataclasses.replace(recipe, lr=REFINING_LR)
        else:
            # The weights are drawn on the CPU: a seed means the same on every device.
            energy = self._energy(vae, members, self._limit(), generator).to(codes.mean.device)
        if views is not None and own is not None:
            images, codes = views.flatten(0, 1), own
        sides = self.space.sides(self.tilt(vae, energy), images, codes, generator)
        log = fit_members(energy, sides, recipe, generator=generator, track=track)
        energy.requires_grad_(False)
        gain = held_out_gain(energy, sides, self.objective.transform(), draws=recipe.held_out, generator=generator)
        return FittedTilt(energy, log, gain)

    def tilt(self, vae: VAE, energy: nn.Module) -> Tilt:
        """The tilted model of an energy."""
        return self.space.tilt(vae, energy, self.objective.transform())

    def restored(self, vae: VAE, config: dict[str, Any]) -> EnsembleEnergy:
        """An energy of a saved shape, its weights not yet loaded."""
        if self.build is None:
            return self.space.restored(config)
        sizes = {name: config[name] for name in ("members", "limit")}
        return Ensemble(self.build, self.space.event_shape(vae), **sizes, generator=torch.Generator())

    def reference_energy(self, tilt: Tilt, images: Tensor, generator: torch.Generator) -> Tensor:
        """Energies (N,) of one reference draw of each image (N, C, H, W), uint8, nats."""
        codes = self.space.codes(cast(VAE, tilt.model), images, generator)
        sides = self.space.sides(tilt, images, codes, generator, decoded=1)
        with torch.no_grad():
            return self.space.read(tilt, sides.draw(torch.arange(len(images)), generator))

    @property
    def by_shares(self) -> bool:
        """Whether the tilt is one of the shares of a learned prior's normals, which no penalty can smooth."""
        return self.build is None and not self.gradient_penalty and self.space.by_shares(self.objective)

    def _fit_shares(
        self, codes: Codes, members: int, weighted: tuple[Codes, Tensor] | None, generator: torch.Generator
    ) -> FittedTilt:
        """The tilt that gives the prior's normals the shares of the reference."""
        energy, log = fit_shares(codes, members, self._limit(), weighted=weighted, generator=generator)
        return FittedTilt(energy, log, held_out_gain(energy, codes, generator=generator))

    def _limit(self) -> float | None:
        return self.space.limit if self.objective.bounded else None

    def _energy(self, vae: VAE, members: int, limit: float | None, generator: torch.Generator) -> EnsembleEnergy:
        if self.build is None:
            return self.space.energy(vae, members, limit, generator)
        shape = self.space.event_shape(vae)
        return Ensemble(self.build, shape, members=members, limit=limit, generator=generator)

    def _codes_of_views(self, vae: VAE, views: Tensor, fold: Tensor, generator: torch.Generator) -> Codes:
        """Codes of changed copies of the reference, each in its image's fold."""
        return dataclasses.replace(self.space.codes(vae, views.flatten(0, 1), generator), fold=fold.repeat(len(views)))

    def _start(
        self,
        vae: VAE,
        codes: Codes,
        weight: Tensor,
        members: int,
        limits: tuple[float, ...],
        *,
        generator: torch.Generator,
        track: Track,
    ) -> EnsembleEnergy:
        """The tilt of weighted codes under the widest bound with reliable importance weights."""
        recipe = dataclasses.replace(self.space.recipe(self.objective, self.gradient_penalty), lr=START_LR)
        for limit in limits:
            one = self._energy(vae, 1, limit, generator).to(codes.mean.device)
            fit_start(one, codes, weight, recipe, generator=generator, track=track)
            sums = WeightSums(CHECKED)
            with torch.no_grad():
                for part in codes.base(CHECKED, generator).split(chunk_size(codes.dim, codes.mean.device)):
                    sums.add(-one(part))
            if sums.report()["reliable"]:
                break
        return self._energy(vae, members, limit, torch.Generator()).to(codes.mean.device).start_from(one)


def _weights(images: Tensor, biased: Tensor, fold: Tensor, **settings: Any) -> Tensor:
    """Weights (members, M) of the biased images, as the reference says; each clustering leaves out a fold of it."""
    # The clusters are found where the codes lie, or on the processor where that has no double precision.
    device = "cpu" if fold.device.type == "mps" else fold.device
    scores = [part.to(device) for part in principal_scores(biased, images, generator=settings["generator"])]
    return cluster_weights(scores[0], scores[1], fold.to(device), **settings).cpu()
