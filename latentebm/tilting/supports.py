"""Whether a model makes what a reference holds: warnings where a tilt's weights collapse, or where it tilts nothing."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from latentebm.models.tilts import LatentTilt
from latentebm.sampling.importance.weights import LEAST_ESS, ess

__all__ = ["NoTiltWarning", "SupportWarning", "check_features_overlap", "check_supports"]

DRAWS = 4096  # of the check for collapse
OUTSIDE = 0.25  # share of the reference, lower in energy than all draws, above which their supports lie apart


class SupportWarning(UserWarning):
    """The energy tells real from generated data, not what the tilt is for: its weights collapsed, or tilt nothing."""


class NoTiltWarning(UserWarning):
    """Held-out reference items reject every tilt: the energy is zero."""


def check_features_overlap(real: Tensor, made: Tensor) -> None:
    """Warn where a feature of the reference (M, F) often lies beyond those of all draws (N, F)."""
    low, high = made.min(0).values, made.max(0).values
    outside = float(((real < low) | (real > high)).float().mean(0).max())
    if outside > OUTSIDE:
        fault = f"features of the reference like those of some draws, got one in which {outside:.0%} lie beyond all"
        fix = "pass features that see only what should be balanced"
        warnings.warn(f"tilt: expected {fault}; {fix}", SupportWarning, stacklevel=4)


@torch.no_grad()
def check_supports(tilt: LatentTilt, reference: Tensor, generator: torch.Generator) -> None:
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
