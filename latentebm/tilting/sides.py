"""The two sides a tilt is fitted on: draws that stand for the reference, and draws of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from latentebm.models.base.mixture_prior import MixturePrior, learned_prior
from latentebm.models.data_tilts import DataTilt
from latentebm.rng import integers, normal, permutation

__all__ = ["POSITIVES", "Codes", "Pictures", "Sides", "assign_folds"]

POSITIVES = ("reconstructed", "raw")
DECODED = 32_768  # images decoded once to draw from: enough that no energy of this size learns them by heart


class Sides(Protocol):
    """Reference and base draws of a space, with the fold of each reference image."""

    @property
    def fold(self) -> Tensor:
        """Number of the member that never trains on this reference image, (N,)."""
        ...

    @property
    def dim(self) -> int:
        """Length of a base point."""
        ...

    @property
    def normal(self) -> bool:
        """Whether the base distribution is N(0, I)."""
        ...

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One draw for each reference image of `rows`, (*rows.shape, *event)."""
        ...

    def base(self, k: int, generator: torch.Generator, *, held_out: bool = False) -> Tensor:
        """Draws (k, *event) of the model; those held out never serve the fit."""
        ...

    def decode(self, u: Tensor) -> Tensor:
        """What the energy reads, (N, *event), of base points (N, dim)."""
        ...


@dataclass(frozen=True)
class Codes:
    """Posterior distributions of the reference images and the fold each belongs to: the sides of a latent tilt.

    Attributes:
        mean: posterior means, (N, d).
        scale: posterior standard deviations, (N, d); zeros stand for the means alone.
        fold: number of the member that never trains on this image, (N,).
        drawn: draws of the base distribution to pick from, (K, d), where it is known by them alone.
        prior: the base distribution where that is a learned prior; without either it is N(0, I).

    Example:
        >>> Codes.split(torch.zeros(5, 2), torch.ones(5, 2), 5, torch.Generator()).fold.sort().values
        tensor([0, 1, 2, 3, 4])
    """

    mean: Tensor
    scale: Tensor
    fold: Tensor
    drawn: Tensor | None = None
    prior: MixturePrior | None = None

    @classmethod
    def split(cls, mean: Tensor, scale: Tensor, folds: int, generator: torch.Generator, **base: Any) -> Codes:
        """Assign images to folds at random, as evenly as can be; one fold holds a fifth out."""
        return cls(mean, scale, assign_folds(len(mean), folds, generator).to(mean.device), **base)

    @property
    def dim(self) -> int:
        """Length d of the codes."""
        return self.mean.shape[1]

    @property
    def normal(self) -> bool:
        """Whether the base distribution is N(0, I)."""
        return self.drawn is None and self.prior is None

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One posterior draw of each image of `rows`, (*rows.shape, d)."""
        noise = normal((*rows.shape, self.dim), generator, self.mean)
        return self.mean[rows] + self.scale[rows] * noise

    def base(self, k: int, generator: torch.Generator, *, held_out: bool = False) -> Tensor:
        """Draws (k, d) of the prior, fresh each time, or of `drawn`."""
        if self.drawn is not None:
            return self.drawn[integers(len(self.drawn), (k,), generator, self.drawn.device)]
        noise = normal((k, self.dim), generator, self.mean)
        return noise if self.prior is None else self.prior.placed(noise, generator)

    def decode(self, u: Tensor) -> Tensor:
        """The codes themselves."""
        return u


@dataclass(frozen=True)
class Pictures:
    """Images of the reference and of the model: the sides of a data tilt.

    Attributes:
        positive: R images for each of N reference images, (R, N, *data_shape).
        negative: decoded means of prior draws, (K, *data_shape).
        held_out: as many again that never serve the fit.
        fold: number of the member that never trains on this image, (N,).
        tilt: the tilt whose base points are decoded; with its noise, both sides are observed through it.

    Example:
        >>> from latentebm.models.data_energies import DataEnergy
        >>> from latentebm.models.vae import VAE
        >>> vae, rng = VAE((1, 8, 8), 2, width=16), torch.Generator().manual_seed(0)
        >>> tilt, codes = DataTilt(vae, DataEnergy((1, 8, 8))), Codes.split(torch.zeros(6, 2), torch.ones(6, 2), 2, rng)
        >>> sides = Pictures.reconstruct(tilt, codes, generator=rng, decoded=100)
        >>> sides.positive.shape, sides.draw(torch.tensor([0, 5]), rng).shape
        (torch.Size([16, 6, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    positive: Tensor
    negative: Tensor
    held_out: Tensor
    fold: Tensor
    tilt: DataTilt

    @classmethod
    def reconstruct(
        cls, tilt: DataTilt, codes: Codes, *, generator: torch.Generator, decoded: int = DECODED
    ) -> Pictures:
        r"""Positives x → z ~ q(z|x) → decode: both sides are then images of the model.

        Arguments:
            tilt: whose model decodes.
            codes: posterior distributions and folds of the reference.
            generator: source of all draws.
            decoded: images decoded per side, at most 16 of each reference image.
        """
        n = len(codes.mean)
        repeats = max(1, min(16, decoded // n))
        positive = _decode(tilt, codes.draw(torch.arange(n).repeat(repeats), generator)).unflatten(0, (repeats, n))
        return cls(positive, *_negatives(tilt, codes, generator, decoded), codes.fold, tilt)

    @classmethod
    def raw(
        cls, tilt: DataTilt, images: Tensor, codes: Codes, *, generator: torch.Generator, decoded: int = DECODED
    ) -> Pictures:
        """Positives are the reference images (N, *data_shape) as they are: another support than the model's."""
        return cls(images[None], *_negatives(tilt, codes, generator, decoded), codes.fold, tilt)

    @property
    def dim(self) -> int:
        """Length of a base point."""
        return self.tilt.dim

    @property
    def normal(self) -> bool:
        """Whether the base distribution is N(0, I)."""
        return learned_prior(self.tilt.model) is None

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One image for each of `rows`, (*rows.shape, *data_shape)."""
        which = integers(len(self.positive), tuple(rows.shape), generator, self.positive.device)
        return self._observed(self.positive[which, rows.to(which.device)], generator)

    def base(self, k: int, generator: torch.Generator, *, held_out: bool = False) -> Tensor:
        """Images (k, *data_shape) of the model."""
        pool = self.held_out if held_out else self.negative
        return self._observed(pool[integers(len(pool), (k,), generator, pool.device)], generator)

    def decode(self, u: Tensor) -> Tensor:
        """Images of base points."""
        return self.tilt.decode(u)

    def _observed(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        if not self.tilt.noise:
            return mean
        return self.tilt.model.likelihood.observe(mean, normal(tuple(mean.shape), generator, mean))


def assign_folds(n: int, folds: int, generator: torch.Generator) -> Tensor:
    """Fold of each of n images, drawn at random, as evenly as can be; one fold holds a fifth out.

    Example:
        >>> assign_folds(4, 2, torch.Generator().manual_seed(0)).bincount()
        tensor([2, 2])
    """
    return permutation(n, generator, "cpu") % min(5 if folds == 1 else folds, n)


def _negatives(tilt: DataTilt, codes: Codes, generator: torch.Generator, decoded: int) -> tuple[Tensor, Tensor]:
    negative, held_out = (_decode(tilt, codes.base(decoded, generator)) for _ in range(2))
    return negative, held_out


@torch.no_grad()
def _decode(tilt: DataTilt, z: Tensor) -> Tensor:
    return tilt.model.decode(z)
