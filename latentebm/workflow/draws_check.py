"""What a run's draws say of themselves, without labels: do they follow the tilt, are they balanced."""

from __future__ import annotations

from typing import Any

import torch

from latentebm.evaluation.cluster_shares import FEWEST as FEWEST_IMAGES
from latentebm.evaluation.cluster_shares import cluster_balance
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.sampling import Draws
from latentebm.sampling.goodness import FEWEST, stein_test
from latentebm.sampling.target import piecewise_constant
from latentebm.workflow.problem import Problem

__all__ = ["clusters_of", "stein_row"]

MOST = 500  # draws tested: n² numbers are held, and so many show a shift of a tenth of a standard deviation
COPIES = 0.02  # share of repeated draws above which the copies alone would fail the test


def stein_row(tilt: Tilt, draws: Draws, generator: torch.Generator) -> dict[str, Any]:
    """The kernel Stein test of a run's first 500 draws: ``draws``, ``discrepancy``, ``p_value``, or ``untested``: why.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.models.tilts import LatentTilt
        >>> from latentebm.models.vae import VAE
        >>> g = torch.Generator().manual_seed(0)
        >>> tilt = LatentTilt(VAE((1, 2, 2), 2), EnergyNet(2))
        >>> u = torch.randn(50, 2, generator=g)
        >>> stein_row(tilt, Draws(u, u, u[:, 0]), g)["p_value"] > 0.01, stein_row(tilt, Draws(u, u + 3, u[:, 0]), g)
        (True, {'draws': 50, 'discrepancy': ..., 'p_value': 0.001})
    """
    u = draws.latent[:MOST]
    reason = _untestable(tilt, u)
    if reason:
        return {"untested": reason}
    found = stein_test(tilt, u, generator=generator)
    return {"draws": len(u), "discrepancy": found.discrepancy, "p_value": found.p_value}


def _untestable(tilt: Tilt, u: torch.Tensor) -> str:
    """Why the test would say nothing of these draws, or nothing."""
    if len(u) < FEWEST:
        return f"fewer than {FEWEST} draws"
    if u.shape[1:] != (tilt.dim,):
        return "the noise of raw pixels is not kept with the draws"
    if 1 - len(u.unique(dim=0)) / len(u) > COPIES:
        return "repeated draws"
    if piecewise_constant(tilt, u):
        return "a piecewise constant energy has no gradient"
    return ""


def clusters_of(problem: Problem, draws: Draws, generator: torch.Generator) -> dict[str, Any] | None:
    """The balance of draws by clusters of raw reference images, or None where there are too few to say.

    Example:
        >>> from latentebm.data.images import Images
        >>> few = Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
        >>> clusters_of(Problem(few, few), Draws(*torch.zeros(3, 9, 1)), torch.Generator()) is None
        True
    """
    if min(len(problem.reference), len(draws)) < FEWEST_IMAGES:
        return None
    return cluster_balance(problem.reference.float01(), draws.x, generator=generator).as_dict()
