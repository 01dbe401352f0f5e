"""Which images a Debiaser's VAE learns from: the biased ones alone, or the reference too, and in which share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.data.augment import augmented
from latentebm.rng import permutation, stream
from latentebm.settings.fields import DebiaserSettings
from latentebm.tilting.reweight import effective_share
from latentebm.training.mixed_in import MixedIn

__all__ = ["THIN", "Sources", "choose_sources"]

THIN = 0.58  # of the biased images, the effective share below which their tail counts as thin
LEAST = 10  # reference images that can be cut into some to learn from and some to choose by
SHARE, AUGMENTS = 0.5, ("affine", "slight", "none")  # taken; the first, unless held-out images clearly prefer another
TRIAL = 0.25  # of the epochs, that a trial takes
VIEWS = 4096  # changed reference images that the tilt is fitted to, at most 16 of each
IMAGES = ("mixed", "held_out")  # fields that no file holds

Trial = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a VAE learns from, and why.

    Attributes:
        learn_from: ``biased`` or ``both``.
        why: the reason, one sentence.
        effective_share: see :func:`latentebm.tilting.reweight.effective_share`; None where nobody asked.
        reference_share: of the reference in every batch; None without.
        augment: how its images are changed at every use; None without.
        tried: of each augmentation the mean held-out −ELBO, nats per image, and by how much it is lower than the
            first one's, with the standard error of this difference over the images.
        mixed: the reference images it learns from; None for none, and once loaded.
        held_out: reference images that it never learns from, which choose its best state; likewise.
    """

    learn_from: str = "biased"
    why: str = "No reference was passed along with the biased images."
    effective_share: float | None = None
    reference_share: float | None = None
    augment: str | None = None
    tried: Sequence[dict[str, Any]] = ()
    mixed: MixedIn | None = None
    held_out: Tensor | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file; the images are left out."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in IMAGES}

    def training(self) -> dict[str, Any]:
        """What `fit_vae` is told besides the biased images; training goes on to the end, and its best state is kept."""
        if self.mixed is None:
            return {}
        return {"mixed": self.mixed, "held_out": self.held_out, "patience": None}

    def views(self, reference: Tensor, generator: torch.Generator) -> Tensor | None:
        """Changed copies (V, M, C, H, W), uint8, of reference images (M, C, H, W), or None where none were learned.

        The VAE knows by heart what it was shown: the posterior of such an image is sharper than an unseen one's. The
        tilt is therefore fitted to changes of the images that the VAE has not seen.
        """
        if self.augment is None:
            return None
        times = max(1, min(16, VIEWS // len(reference)))
        how = "slight" if self.augment == "none" else self.augment
        copies = [augmented(reference.float() / 255, how, generator=generator) for _ in range(times)]
        return (torch.stack(copies) * 255).round().to(torch.uint8)


def choose_sources(
    settings: DebiaserSettings,
    biased: Tensor,
    reference: Tensor | None,
    trial: Trial,
) -> Sources:
    """Decide what a VAE learns from, as the settings ask, without labels.

    Where it learns from both, the reference takes half of every batch, changed affinely unless held-out images are
    better explained after another change by more than one standard error.

    Arguments:
        settings: ``learn_from``, ``reference_share``, ``augment`` and ``seed`` of a `Debiaser`.
        biased: (N, C, H, W), uint8.
        reference: (M, C, H, W), uint8; None for none.
        trial: trains a fresh VAE for a part of the epochs, ``trial(part, mixed=…, held_out=…)``, and returns
            the −ELBO (H,) of the images held out.

    Raises:
        ValueError: ``both`` without at least ten reference images.

    References:
        Classification and Regression Trees (Breiman et al., 1984), for the rule of one standard error

    Example:
        >>> choose_sources(DebiaserSettings(), torch.zeros(4, 1, 2, 2), None, lambda *_, **__: None).learn_from
        'biased'
    """
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
    augments = AUGMENTS if settings.augment == "auto" else (settings.augment,)
    mixtures = {augment: MixedIn(images=learned, share=amount, augment=augment) for augment in augments}
    tried = _tried(mixtures, held_out, trial) if len(mixtures) > 1 else ()
    augment = _chosen(augments[0], tried)
    chosen: dict[str, Any] = {"reference_share": amount, "augment": augment, "mixed": mixtures[augment]}
    return Sources(learn_from="both", why=why, effective_share=share, tried=tried, held_out=held_out, **chosen)


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
    """Four fifths of the reference to learn from, and a fifth to choose by."""
    rows = permutation(len(reference), generator, "cpu")
    aside = len(reference) // 5
    return reference[rows[aside:].sort().values], reference[rows[:aside].sort().values]


def _tried(mixtures: dict[str, MixedIn], held_out: Tensor, trial: Trial) -> tuple[dict[str, Any], ...]:
    """What short trainings say of each mixture, compared with the first image by image."""
    losses = {name: trial(TRIAL, mixed=mixed, held_out=held_out).double() for name, mixed in mixtures.items()}
    first = next(iter(losses.values()))
    rows = []
    for name, loss in losses.items():
        lower = first - loss
        error = lower.std() / len(lower) ** 0.5
        row = {"held_out_loss": float(loss.mean()), "lower_by": float(lower.mean()), "standard_error": float(error)}
        rows.append({"augment": name, "share": mixtures[name].share, **row})
    return tuple(rows)


def _chosen(usual: str, tried: Sequence[dict[str, Any]]) -> str:
    """The augmentation of the lowest held-out loss where that is clearly lower, else the usual one."""
    clear = [row for row in tried if row["lower_by"] > row["standard_error"]]
    return min(clear, key=lambda row: row["held_out_loss"], default={"augment": usual})["augment"]
