"""Tilt someone else's model to a reference set, by its codes or by features of its data."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_rng
from latentebm.devices import beside
from latentebm.models.base.mixture_prior import learned_prior
from latentebm.models.decode_time import pool_size
from latentebm.models.energies import EnergyNet
from latentebm.models.features import FeatureEnergy
from latentebm.models.latent_model import LatentModel, check_codes, check_model
from latentebm.models.seen.reference_set import check_reference, features_of_both, resolved_features
from latentebm.models.tilts import LatentTilt
from latentebm.progress import Track, silent
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.objectives import Objective
from latentebm.tilting.sides import Codes
from latentebm.tilting.spaces import LatentSpace
from latentebm.tilting.supports import NoTiltWarning, check_features_overlap, check_supports
from latentebm.training.logs import Log, reporter

__all__ = ["Standardised", "flat", "tilt_generator"]

SMALL = 1_000  # reference items below which directions in the features are pursued


def flat(x: Tensor) -> Tensor:
    """The data themselves (N, F), as features."""
    return x.reshape(len(x), -1)


class Standardised(nn.Module):
    r"""An energy of features (N, F) that are first centred and scaled, by (F,) numbers each.

    .. math:: E(\phi) = e\big((\phi - m) / s\big)

    Example:
        >>> Standardised(nn.Flatten(0), torch.ones(1), torch.full((1,), 2.0))(torch.tensor([[5.0]]))
        tensor([2.])
    """

    def __init__(self, energy: nn.Module, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.energy = energy
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def arguments(self) -> dict[str, Any]:
        """Energy, mean and scale."""
        return {"energy": self.energy, "mean": self.mean, "scale": self.scale}

    def forward(self, features: Tensor) -> Tensor:
        """Energies (N,) of features (N, F)."""
        return cast(Tensor, self.energy((features - self.mean) / self.scale))


def tilt_generator(
    model: LatentModel,
    reference: Tensor,
    *,
    features: Callable[[Tensor], Tensor] | str | None = None,
    recipe: TiltRecipe | None = None,
    folds: int = 5,
    pool: int | str = 20_000,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> LatentTilt:
    r"""Tilt any model's normal latent so that its data are distributed as a reference set.

    .. math:: \max_E\; -\mathrm{mean}_i\, E(\phi(x_i)) - \log E_{p_0}\big[e^{-E(\phi(\mathrm{decode}(z)))}\big]

    With `features` the energy is a function of features φ of the data. Without them it is one of the code, if the
    model can ``encode``; otherwise one of the data themselves, and there lies a trap: an energy that sees any
    difference between real and generated data fits that, and its weights collapse onto the few draws that look most
    real, or tilt nothing where no draw looks real at all (a `SupportWarning` says so). Prefer an encoder, or features
    that see what should be balanced and little else.

    Below 1,000 reference items, features (or data) are read by `pursue`: soft cells of the model's own draws, weighted
    so that they have the reference's shares, or steps along a few directions where held-out items gain clearly more;
    where they gain by neither, the energy is zero and a `NoTiltWarning` says so. A `recipe`, or more items, fits
    networks.

    Arguments:
        model: anything with `latent_dim` and `decode` (see :class:`WrappedModel`), and optionally ``encode`` to codes;
            it is not changed.
        reference: the reference set, (M, *data_shape), on the scale of the model's output.
        features: data to features (N, F), or the name of some: ``pixels:8``, ``pca:24``, ``classifier:PATH``,
            ``torchvision:NAME``, ``timm:NAME`` (see `named_features`). Samplers by gradient need them and ``decode`` to
            be differentiable.
        recipe: objective and optimizer settings of networks; None for the defaults.
        folds: ensemble members, each fitted without its own fold of the reference.
        pool: draws of the model whose features stand for its distribution in the fit, or the time to decode them, such
            as ``"10min"``.

    Raises:
        ValueError: a reference or features whose shape does not fit the model's data, or not a `LatentModel`.
        DivergedError: the loss became NaN or infinite.

    References:
        Your GAN is Secretly an Energy-based Model and You Should Use Discriminator Driven Latent Sampling (Che et al.,
        2020), https://arxiv.org/abs/2003.06060

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> rng = torch.Generator().manual_seed(0)
        >>> model, reference = WrappedModel(nn.Identity(), 1), 1 + torch.randn(500, 1, generator=rng)
        >>> tilt = tilt_generator(model, reference, features=lambda x: x, recipe=TiltRecipe(steps=50), generator=rng)
        >>> low, high = tilt.energy(torch.tensor([[-1.0], [1.0]])).tolist()
        >>> high < low
        True
    """
    check_model("model", model)
    check_rng(generator)
    reference = beside(model, reference) if isinstance(reference, Tensor) else reference
    check_reference(model, reference, generator)
    if features is not None:
        features = resolved_features(model, features, reference, generator)
    members = min(check_int("folds", folds), len(reference))
    fitted = functools.partial(
        _fitted, recipe=recipe or TiltRecipe(), members=members, generator=generator, track=track, log=log
    )
    if features is None and hasattr(model, "encode") and getattr(model, "encoder", model) is not None:
        real, scale = _codes(model, reference)
        seen: nn.Module = fitted(real, scale, prior=learned_prior(model))
        tilt = LatentTilt(model, seen)
    else:
        features = features or flat
        real, made = features_of_both(model, reference, features, pool_size(model, pool), generator, track)
        if recipe is None and len(reference) < SMALL:
            pursued: Any = _pursued(real, made, members, generator)
            reporter("tilt", log)(0, {"gain": pursued.gain})
            return LatentTilt(model, FeatureEnergy(model, features, pursued))
        seen = _of_features(real, made, fitted)
        tilt = LatentTilt(model, FeatureEnergy(model, features, seen))
    check_supports(tilt, seen(real), generator)
    return tilt


@torch.no_grad()
def _codes(model: LatentModel, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Means and scales of the codes' posterior where the model has one, else its codes as points."""
    if hasattr(model, "posterior"):
        posterior = model.posterior(reference)
        return posterior.mean, posterior.stddev
    codes = model.encode(reference)  # type: ignore[attr-defined]
    z = check_codes("encode", codes, len(reference), model.latent_dim)
    return z, torch.zeros_like(z)


def _pursued(real: Tensor, made: Tensor, folds: int, generator: torch.Generator) -> nn.Module:
    """An energy of few reference items, with a word where there is none, or where the model makes no such items."""
    from latentebm.tilting.few.pursuit import pursue  # here, since scipy takes half a second

    check_features_overlap(real, made)
    energy = pursue(real, made, folds=folds, generator=generator)
    if not energy.limit:
        fault = "a tilt by which held-out reference items gain more than their standard error, got none: no tilt"
        warnings.warn(f"tilt: expected {fault}; pass more items or other features", NoTiltWarning, stacklevel=3)
    return energy


def _of_features(real: Tensor, made: Tensor, fitted: Callable[..., EnergyNet]) -> nn.Module:
    """An energy of features, fitted on standardised ones."""
    mean, scale = made.mean(0), made.std(0)
    # Constant features say nothing; a unit scale leaves them without effect.
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.ones_like(scale))
    energy = fitted((real - mean) / scale, torch.zeros_like(real), drawn=(made - mean) / scale)
    return Standardised(energy, mean, scale)


def _fitted(
    mean: Tensor,
    scale: Tensor,
    *,
    recipe: TiltRecipe,
    members: int,
    generator: torch.Generator,
    track: Track,
    log: Log | None,
    **base: Any,
) -> EnergyNet:
    """An ensemble fitted to reference points N(mean, scale²) against a `base` of `Codes`."""
    limit = LatentSpace().limit if cast(Objective, recipe.objective).bounded else None
    energy = EnergyNet(mean.shape[1], members=members, limit=limit, generator=generator).to(mean.device)
    codes = Codes.split(mean, scale, members, generator, **base)
    fit_energy(energy, codes, recipe, generator=generator, track=track, log=log)
    return energy.requires_grad_(False)
