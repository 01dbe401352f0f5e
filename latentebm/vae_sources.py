"""Which images a Debiaser's VAE learns from: the biased ones alone, or the reference too, and in which share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.data.augment import augmented
from latentebm.rng import permutation, stream
from latentebm.settings.fields import FLAT, DebiaserSettings
from latentebm.tilting.clusters.reweight import effective_share, principal_scores
from latentebm.training.dispersion import dispersion
from latentebm.training.mixed_in import MixedIn

__all__ = ["THIN", "Sources", "changed_distance", "choose_sources"]

THIN = 0.58  # of the biased images, the effective share below which their tail counts as thin
MANY = 600  # reference images that may be shown as they are and learned sharply: each comes up too seldom to be copied
LEAST = 10  # reference images that can be cut into some to learn from and some to stop by
# Held-out likelihood chooses neither: it prefers smaller changes, after which more of the draws are copies.
SHARE, AUGMENTS = 0.5, ("affine", "slight", "none")
PULL, GREY = 0.5, 0.3  # of a critic, and the dispersion up to which pixels are grey enough to need one
FARTHER = 1.35  # as far from the nearest other image as an unchanged one: how far changes may take an image
CHANGED, OTHERS = 500, 4_000  # biased images that are changed, and those they are held against
VIEWS = 4096  # changed reference images that the tilt is fitted to, at most 16 of each
IMAGES = ("mixed", "held_out")  # fields that no file holds


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a VAE learns from, and why.

    Attributes:
        learn_from: ``biased`` or ``both``.
        why: the reason, one sentence.
        effective_share: see :func:`latentebm.tilting.clusters.reweight.effective_share`; None where nobody asked.
        reference_share: of the reference in every batch; None without.
        augment: how its images are changed at every use; None without.
        dispersion: of the biased pixels, see :func:`latentebm.training.dispersion.dispersion`: above three dimensions
            the weight of the KL term, where none is asked for; None below, or with a Gaussian likelihood.
        pull: of the critic that sharpens the images, 0 for none; see :func:`latentebm.training.sharpen.sharpen`.
        farther: how far changed images are from the nearest other one, by augmentation; see `changed_distance`.
        mixed: the reference images it learns from; None for none, and once loaded.
        held_out: reference images that it never learns from, which choose its best state; likewise.
    """

    learn_from: str = "biased"
    why: str = "No reference was passed along with the biased images."
    effective_share: float | None = None
    reference_share: float | None = None
    augment: str | None = None
    dispersion: float | None = None
    pull: float = 0.0
    farther: dict[str, float] = field(default_factory=dict)
    mixed: MixedIn | None = None
    held_out: Tensor | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file; the images are left out."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in IMAGES}

    def training(self) -> dict[str, Any]:
        """What `fit_vae` is told besides the biased images; training goes on to the end, and its best state is kept."""
        if self.mixed is None:
            return {"pull": self.pull}
        return {"pull": self.pull, "mixed": self.mixed, "held_out": self.held_out, "patience": None}

    def views(self, reference: Tensor, generator: torch.Generator) -> Tensor | None:
        """Changed copies (V, M, C, H, W), uint8, of reference images (M, C, H, W), or None where none were learned.

        The VAE knows by heart what it was shown: the posterior of such an image is sharper than an unseen one's. The
        tilt is therefore fitted to changes of the images that the VAE has not seen, but for many images that it saw
        unchanged, and too seldom for that: they stand for themselves.
        """
        if self.augment is None:
            return None
        if self.augment == "none" and len(reference) >= MANY:
            return reference[None]
        times = max(1, min(16, VIEWS // len(reference)))
        how = "slight" if self.augment == "none" else self.augment
        copies = [augmented(reference.float() / 255, how, generator=generator) for _ in range(times)]
        return (torch.stack(copies) * 255).round().to(torch.uint8)


def choose_sources(
    settings: DebiaserSettings,
    biased: Tensor,
    reference: Tensor | None,
) -> Sources:
    """Decide what a VAE learns from, as the settings ask, without labels.

    Where it learns from both, by default the reference takes half of every batch. Fewer than 600
    images are changed as much as still leads to images of the same kind: to at most 1.35 times the `changed_distance`.
    More are shown as they are. Where pixels are grey a critic sharpens what the VAE makes of them.

    Arguments:
        settings: ``learn_from``, ``reference_share``, ``augment`` and ``seed`` of a `Debiaser`.
        biased: (N, C, H, W), uint8.
        reference: (M, C, H, W), uint8; None for none.

    Raises:
        ValueError: ``both`` without at least ten reference images.

    Example:
        >>> choose_sources(DebiaserSettings(), torch.zeros(4, 1, 2, 2), None).learn_from
        'biased'
    """
    found = replace(_learned_from(settings, biased, reference), dispersion=_dispersion(settings, biased))
    return replace(found, pull=_pull(settings, found))


def _pull(settings: DebiaserSettings, found: Sources) -> float:
    """A critic's pull: by default for thin tails of grey pixels, whose blur is read as classes that have more."""
    if settings.sharpen != "auto":
        return float(settings.sharpen)
    grey = found.dispersion is not None and found.dispersion <= GREY
    return PULL if found.learn_from == "both" and grey else 0.0


def _dispersion(settings: DebiaserSettings, biased: Tensor) -> float | None:
    if settings.latent_dim <= FLAT or settings.likelihood != "bernoulli" or len(biased) < 4:
        return None
    return dispersion(biased, settings.latent_dim, generator=stream(settings.seed, 12))


def _learned_from(settings: DebiaserSettings, biased: Tensor, reference: Tensor | None) -> Sources:
    count = 0 if reference is None else len(reference)
    if settings.learn_from == "both" and count < LEAST:
        raise fail("reference", f"at least {LEAST} images with learn_from=both", count, "pass learn_from=biased")
    if settings.learn_from == "biased":
        return Sources(why="As asked.")
    if reference is None:
        return Sources()
    rng = stream(settings.seed, 11)
    share, why = None, "As asked."
    if settings.learn_from == "auto":
        share, why = _effective(biased, reference, rng)
        if count < LEAST or share >= THIN:
            return Sources(why=why, effective_share=share)
    learned, held_out = _parted(reference, rng)
    amount = SHARE if settings.reference_share == "auto" else float(settings.reference_share)
    augment: str = settings.augment
    farther: dict[str, float] = {}
    if augment == "auto" and count >= MANY:
        augment = "none"
    elif augment == "auto":
        farther = {how: changed_distance(biased, how, generator=rng) for how in AUGMENTS[:-1]}
        augment = next((how for how, ratio in farther.items() if ratio <= FARTHER), AUGMENTS[-1])
    mixed = MixedIn(images=learned, share=amount, augment=augment)
    chosen: dict[str, Any] = {"reference_share": amount, "augment": augment, "farther": farther}
    return Sources(learn_from="both", why=why, effective_share=share, mixed=mixed, held_out=held_out, **chosen)


def changed_distance(images: Tensor, how: str, *, generator: torch.Generator) -> float:
    r"""How far images are from the nearest other one once they are changed, relative to how far they were.

    .. math:: r = \sum_i \min_j |s(T x_i) - s(x_j)| \Big/ \sum_i \min_j |s(x_i) - s(x_j)|, \qquad
              r' = \sqrt{1 + (r^2 - 1)\, (4000 / n)^{2/m}}

    with principal components s. Near 1 the change T leads from images to images of the same kind, as turning a digit a
    little does; where it is well above 1, as for clothes, a model of changed images is not one of images. Among few
    others, n < 4000, the nearest is far away with and without T: r' is what r would be among 4000, as that distance
    goes like n^(-1/m), where m follows from half of them.

    Arguments:
        images: (N, C, H, W), uint8, at least four.
        how: name in `AUGMENTATIONS`.
        generator: source of the change, and of the images that it is tried on.

    Example:
        >>> x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)).mul(255).byte()
        >>> changed_distance(x, "none", generator=torch.Generator())
        1.0
    """
    order = permutation(len(images), generator, "cpu")[: CHANGED + OTHERS]
    count = min(CHANGED, len(order) // 2)
    asked, others = images[order[:count]], images[order[count:]]
    changed = (augmented(asked.float() / 255, how, generator=generator) * 255).round().byte()
    known, own = principal_scores(others, torch.cat([asked, changed]), generator=generator)
    apart = torch.cdist(own, known)
    before, after = (part.sum().clamp_min(1e-12) for part in apart.amin(1).chunk(2))
    half = apart[:count, : len(known) // 2].amin(1).sum()
    nearer = (OTHERS / len(known)) ** float((half / before).log2().clamp(0, 1))
    return math.sqrt(max(1 + (float(after / before) ** 2 - 1) * nearer**2, 0))


def _effective(biased: Tensor, reference: Tensor, generator: torch.Generator) -> tuple[float, str]:
    """The effective share of the biased images, and what it says."""
    share = effective_share(biased, reference, generator=generator)
    side = "below" if share < THIN else "not below"
    why = (
        f"Weighted as {len(reference):,} reference images say, the {len(biased):,} biased images are worth "
        f"{100 * share:.0f} % of their number, {side} {100 * THIN:.0f} %"
    )
    return share, f"{why}: {'the tail is thin' if share < THIN else 'the tilt alone serves'}."


def _parted(reference: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four fifths of the reference to learn from, and a fifth to choose the best state by."""
    rows = permutation(len(reference), generator, "cpu")
    aside = len(reference) // 5
    return reference[rows[aside:].sort().values], reference[rows[:aside].sort().values]
