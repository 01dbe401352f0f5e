"""A reference set beside a model's draws: its shape and scale, and the features through which both are seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentebm import processes
from latentebm.checks import check_finite, fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, in_chunks
from latentebm.disk.walk import walked
from latentebm.models.base.mixture_prior import learned_prior
from latentebm.models.features import check_features, checked_features, decoded_features
from latentebm.models.latent_model import LatentModel
from latentebm.models.seen.named_features import named_features
from latentebm.progress import Track
from latentebm.rng import normal

__all__ = ["check_reference", "features_of_both", "resolved_features"]

FEW, LEARNED_FROM = 32, 1_000  # draws that features are tried on, and that components are learned from
IMAGES, BYTES = 4, 20  # dimensions of a batch of images; ratio of values that other scales than the model's have


def check_reference(model: LatentModel, reference: Tensor, generator: torch.Generator) -> None:
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
        ways = ("x / 255", "x / 127.5 - 1") if ends[1][1] > BYTES else ("x / 2 + 0.5", "2 * x - 1")
        fix = f"rescale it, for example by {ways[signed[0]]}"
        raise fail("reference", expected, f"values in [{ends[1][0]:.3g}, {ends[1][1]:.3g}]", fix)


@torch.no_grad()
def resolved_features(
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


@torch.no_grad()
def features_of_both(
    model: LatentModel,
    reference: Tensor,
    features: Callable[[Tensor], Tensor],
    pool: int,
    generator: torch.Generator,
    track: Track,
) -> tuple[Tensor, Tensor]:
    """Features of the reference (M, F) and of draws of the model (pool, F), which several processes decode together."""
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

    def seen(z: Tensor) -> Tensor:
        return checked(decoded_features(model, features, z))

    def made(own: Tensor) -> Tensor:
        return torch.cat(walked(seen, own.split(size), "pool", lambda: [draws, real], track=track))

    return real, processes.spread(made, draws)


def _prior(model: LatentModel, n: int, reference: Tensor, generator: torch.Generator) -> Tensor:
    noise = normal((n, model.latent_dim), generator, torch.empty(0, device=reference.device))
    prior = learned_prior(model)
    return noise if prior is None else prior.placed(noise, generator)
