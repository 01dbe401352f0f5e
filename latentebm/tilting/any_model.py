"""Tilt someone else's model to a reference set, by its codes or by features of its data."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_finite, check_int, check_rng, fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, in_chunks
from latentebm.devices import beside
from latentebm.models.decode_time import pool_size
from latentebm.models.energies import EnergyNet
from latentebm.models.features import FeatureEnergy, check_features, checked_features, decoded_features
from latentebm.models.latent_model import LatentModel, check_codes, check_model
from latentebm.models.seen.named_features import named_features
from latentebm.models.tilts import LatentTilt
from latentebm.progress import Track, silent
from latentebm.rng import normal
from latentebm.sampling.importance.weights import LEAST_ESS, ess
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.objectives import Objective
from latentebm.tilting.sides import Codes
from latentebm.tilting.spaces import LatentSpace
from latentebm.training.logs import Log, reporter

__all__ = ["NoTiltWarning", "Standardised", "SupportWarning", "tilt_generator"]

FEW, LEARNED_FROM = 32, 1_000  # draws that features are tried on, and that components are learned from
IMAGES, BYTES = 4, 20  # dimensions of a batch of images; ratio of values that other scales than the model's have
SMALL = 1_000  # reference items below which directions in the features are pursued
DRAWS = 4096  # of the check for collapse
OUTSIDE = 0.25  # share of the reference, lower in energy than all draws, above which their supports lie apart


def flat(x: Tensor) -> Tensor:
    """The data themselves (N, F), as features."""
    return x.reshape(len(x), -1)


class SupportWarning(UserWarning):
    """The energy tells real from generated data, not what the tilt is for: its weights collapsed, or tilt nothing."""


class NoTiltWarning(UserWarning):
    """Held-out reference items reject every tilt: the energy is zero."""


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
    _matching(model, reference, generator)
    if features is not None:
        features = _resolved(model, features, reference, generator)
    members = min(check_int("folds", folds), len(reference))
    fitted = functools.partial(
        _fitted, recipe=recipe or TiltRecipe(), members=members, generator=generator, track=track, log=log
    )
    if features is None and hasattr(model, "encode") and getattr(model, "encoder", model) is not None:
        real, scale = _codes(model, reference)
        seen: nn.Module = fitted(real, scale)
        tilt = LatentTilt(model, seen)
    else:
        features = features or flat
        real, made = _both(model, reference, features, pool_size(model, pool), generator, track)
        if recipe is None and len(reference) < SMALL:
            pursued: Any = _pursued(real, made, members, generator)
            reporter("tilt", log)(0, {"gain": pursued.gain})
            return LatentTilt(model, FeatureEnergy(model, features, pursued))
        seen = _of_features(real, made, fitted)
        tilt = LatentTilt(model, FeatureEnergy(model, features, seen))
    _check_supports(tilt, seen(real), generator)
    return tilt


def _matching(model: LatentModel, reference: Tensor, generator: torch.Generator) -> None:
    """Raise unless the reference has the shape of the model's data."""
    if not isinstance(reference, Tensor) or not reference.is_floating_point():
        got = str(reference.dtype) if isinstance(reference, Tensor) else type(reference).__name__
        raise fail("reference", "a float tensor on the scale of the model's output", got, "convert and scale it")
    if len(reference) < 2:
        raise fail("reference", "at least 2 items", len(reference), "pass more of them")
    check_finite("reference", reference)
    with torch.no_grad():
        made = model.decode(_prior(model, FEW, reference, generator))
    if made.shape[1:] != reference.shape[1:]:
        got = f"{tuple(reference.shape[1:])}"
        raise fail("reference", f"items of the decoded shape {tuple(made.shape[1:])}", got, "reshape one to the other")
    if made.ndim == IMAGES:
        _same_scale(made, reference)


def _same_scale(made: Tensor, reference: Tensor) -> None:
    """Raise where images in [0, 1] or [0, 255] meet others in [−1, 1], as their values say."""
    ends = [(float(x.min()), float(x.max())) for x in (made, reference)]
    signed = [-1.01 <= low < -0.2 and high <= 1.01 for low, high in ends]
    if (signed[0] != signed[1] and ends[signed[0]][0] >= 0) or ends[1][1] > BYTES * max(1.0, ends[0][1]):
        expected = f"images on the model's scale, which spans [{ends[0][0]:.3g}, {ends[0][1]:.3g}]"
        fix = "rescale it, for example by 2 * x - 1 from [0, 1] to [-1, 1]"
        raise fail("reference", expected, f"values in [{ends[1][0]:.3g}, {ends[1][1]:.3g}]", fix)


@torch.no_grad()
def _resolved(
    model: LatentModel, features: object, reference: Tensor, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """Features as a function that tells some of the model's draws apart, each by itself."""
    if not isinstance(features, str) and not callable(features):
        fix = "pass a function or leave it out"
        raise fail("features", "a function of the data, a name, or None", repr(features), fix)
    count = LEARNED_FROM if isinstance(features, str) and features.startswith("pca") else FEW
    draws = in_chunks(model.decode, _prior(model, count, reference, generator), FEW)
    function = named_features(features, draws) if isinstance(features, str) else features
    return check_features(function, draws[:FEW])


def _prior(model: LatentModel, n: int, reference: Tensor, generator: torch.Generator) -> Tensor:
    return normal((n, model.latent_dim), generator, torch.empty(0, device=reference.device))


@torch.no_grad()
def _codes(model: LatentModel, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Means and scales of the codes' posterior where the model has one, else its codes as points."""
    if hasattr(model, "posterior"):
        posterior = model.posterior(reference)
        return posterior.mean, posterior.stddev
    codes = model.encode(reference)  # type: ignore[attr-defined]
    z = check_codes("encode", codes, len(reference), model.latent_dim)
    return z, torch.zeros_like(z)


@torch.no_grad()
def _both(
    model: LatentModel,
    reference: Tensor,
    features: Callable[[Tensor], Tensor],
    pool: int,
    generator: torch.Generator,
    track: Track,
) -> tuple[Tensor, Tensor]:
    """Features of the reference (M, F) and of draws of the model (pool, F)."""
    draws = _prior(model, pool, reference, generator)
    widths: set[int] = set()

    def checked(phi: Tensor) -> Tensor:
        widths.add(phi.shape[1])
        if len(widths) > 1:
            expected = "the same number of features for every item"
            raise fail("features", expected, sorted(widths), "return a fixed width")
        return phi

    size = chunk_size(max(CHAIN_NUMBERS, reference[0].numel()), reference.device)
    real = in_chunks(lambda x: checked(checked_features(features, x)), reference, size)
    made = [checked(decoded_features(model, features, z)) for z in track(draws.split(size), "pool")]
    return real, torch.cat(made)


def _pursued(real: Tensor, made: Tensor, folds: int, generator: torch.Generator) -> nn.Module:
    """An energy of few reference items, with a word where there is none, or where the model makes no such items."""
    from latentebm.tilting.few.pursuit import pursue  # here, since scipy takes half a second

    low, high = made.min(0).values, made.max(0).values
    outside = float(((real < low) | (real > high)).float().mean(0).max())
    if outside > OUTSIDE:
        fault = f"features of the reference like those of some draws, got one in which {outside:.0%} lie beyond all"
        fix = "pass features that see only what should be balanced"
        warnings.warn(f"tilt: expected {fault}; {fix}", SupportWarning, stacklevel=3)
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
    drawn: Tensor | None = None,
    recipe: TiltRecipe,
    members: int,
    generator: torch.Generator,
    track: Track,
    log: Log | None,
) -> EnergyNet:
    """An ensemble fitted to reference points N(mean, scale²)."""
    limit = LatentSpace().limit if cast(Objective, recipe.objective).bounded else None
    energy = EnergyNet(mean.shape[1], members=members, limit=limit, generator=generator).to(mean.device)
    codes = Codes.split(mean, scale, members, generator, drawn)
    fit_energy(energy, codes, recipe, generator=generator, track=track, log=log)
    return energy.requires_grad_(False)


@torch.no_grad()
def _check_supports(tilt: LatentTilt, reference: Tensor, generator: torch.Generator) -> None:
    """Warn where the weights collapse on few draws, or where no draw is as low in energy as much of the reference is.

    A bounded energy of supports that lie apart is the same on all of the model's: its weights are even, and it tilts
    nothing.
    """
    made = tilt.energy(tilt.sample_base(DRAWS, generator=generator))
    share, outside = float(ess(-made.double())), float((reference < made.min()).float().mean())
    if share < LEAST_ESS:
        fault = f"an effective sample size of at least {LEAST_ESS:.0%} of the draws, got {share:.2%}"
    elif outside > OUTSIDE:
        fault = f"a reference like some of {DRAWS:,} draws, got {outside:.0%} of it unlike any"
    else:
        return
    fix = "the energy may tell real from generated: pass features that see only what should be balanced"
    warnings.warn(f"tilt: expected {fault}; {fix}", SupportWarning, stacklevel=3)
