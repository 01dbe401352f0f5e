"""Held-out scores of a tilt: each ensemble member on the fold of the reference it never trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentebm.chunks import in_chunks
from latentebm.models.energies import EnsembleEnergy
from latentebm.objectives.tilt_losses import gain
from latentebm.tilting.sides import Sides

__all__ = ["by_fold", "held_out_draws", "held_out_gain"]


def held_out_gain(
    energy: EnsembleEnergy,
    sides: Sides,
    transform: Callable[[Tensor], Tensor] | None = None,
    *,
    draws: int = 20_000,
    generator: torch.Generator,
) -> float:
    r"""Cross-validated gain: each member on the fold it never trained on, averaged, in nats an image.

    .. math:: \frac1M \sum_m \hat G(E_m; \text{fold } m)

    Early stopping picked each member's best state on the same fold, so the estimate is slightly optimistic.

    Arguments:
        energy: fitted ensemble.
        sides: what it was fitted on.
        transform: elementwise map of the energies, such as `calibrated`.
        draws: base draws of the estimate; reference draws are two fifths of it.
        generator: source of the draws.

    Raises:
        ValueError: codes of another length.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.tilting.sides import Codes
        >>> rng = torch.Generator().manual_seed(0)
        >>> codes = Codes.split(torch.zeros(10, 2), torch.ones(10, 2), 2, rng)
        >>> held_out_gain(EnergyNet(2, members=2), codes, generator=rng)
        0.0
    """
    points, x0 = held_out_draws(sides, energy.n_members, draws, generator)
    apply = transform or (lambda e: e)
    with torch.no_grad():
        return float(by_fold(lambda q, p: gain(apply(q), apply(p)), energy, points, x0).mean())


def held_out_draws(sides: Sides, members: int, draws: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """Reference draws of each fold and base draws: drawn once, so that only the energy changes a score.

    Example:
        >>> from latentebm.tilting.sides import Codes
        >>> rng = torch.Generator().manual_seed(0)
        >>> folds, base = held_out_draws(Codes.split(torch.zeros(10, 2), torch.ones(10, 2), 2, rng), 2, 50, rng)
        >>> [len(draws) for draws in folds], base.shape
        ([10, 10], torch.Size([50, 2]))
    """
    repeats = max(1, draws * 2 // 5 // len(sides.fold))
    rows = [torch.nonzero(sides.fold == m).flatten().repeat(repeats) for m in range(members)]
    base = sides.base(draws, generator, held_out=True)
    return [sides.draw(r, generator) for r in rows], base


def by_fold(
    score: Callable[[Tensor, Tensor], Tensor], energy: EnsembleEnergy, points: list[Tensor], base: Tensor
) -> Tensor:
    """Scores (M,): member m on the draws of fold m and on base draws.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> by_fold(gain, EnergyNet(2, members=2), [torch.zeros(3, 2), torch.ones(4, 2)], torch.zeros(5, 2)).shape
        torch.Size([2])
    """
    on_base = _members(energy, base)
    return torch.stack([score(_members(energy, x)[m], on_base[m]) for m, x in enumerate(points)])


def _members(energy: EnsembleEnergy, x: Tensor) -> Tensor:
    """Energies (M, N), in chunks that bound the memory of images."""
    return in_chunks(energy.members, x, dim=1)
