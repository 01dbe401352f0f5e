"""Weights of cells by a reference's shares in them, as bold as held-out items allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax

from latentebm.models.seen.cell_energy import CellEnergy
from latentebm.tilting.few.cells import Cells
from latentebm.tilting.few.penalised import held_out_gains, most_likely
from latentebm.tilting.few.share_ratios import Array

__all__ = ["KEPT", "CellFit", "effective", "gains", "standard_error"]

PSEUDO = (64.0, 32.0, 16.0, 8.0, 4.0)  # items at the draws' shares, from cautious to bold
STEP = 0.1  # of the strength
KEPT = 0.5  # effective draws that a stronger fit keeps


@dataclass(frozen=True)
class CellFit:
    """Weights of the cells' columns.

    Attributes:
        cells: of the model's draws.
        made: columns of the draws, (N, J).
        theta: of the log-weight, (J,).
        pseudo: items of penalty.
        held: what held-out items gain by it, (M,) nats.
        best: the same by that penalty among all which gains most.
    """

    cells: Cells
    made: Array
    theta: Array
    pseudo: float
    held: Array
    best: Array

    @classmethod
    def of(cls, cells: Cells, draws: Array, reference: Array, fold: Array) -> CellFit:
        """The least penalised fit by which held-out items gain more than their standard error, or the most penalised.

        Arguments:
            cells: of the model's draws.
            draws: features of the draws, (N, F).
            reference: features of the reference, (M, F).
            fold: of every reference item, (M,).
        """
        made, real = cells.columns(draws), cells.columns(reference)
        fits, theta = [], np.zeros(made.shape[1])
        for pseudo in PSEUDO:
            theta = most_likely(real.mean(0), made, pseudo / len(real), theta)
            fits.append((theta, pseudo, held_out_gains(real, made, fold, pseudo, theta)))
        bold = next((fit for fit in reversed(fits) if gains(fit[2])), fits[0])
        return cls(cells, made, *bold, max((held for _, _, held in fits), key=np.mean))

    @property
    def log_weight(self) -> Array:
        """Of the draws, (N,)."""
        return np.asarray(self.made @ self.theta)

    def again(self, reference: Array) -> Array:
        """Log-weights (N,) of the draws by a fit of the same penalty to another reference (M, F)."""
        mean = self.cells.columns(reference).mean(0)
        return np.asarray(self.made @ most_likely(mean, self.made, self.pseudo / len(reference), self.theta))

    def accepted(self, strength: float, reference: Array, fold: Array) -> float:
        """The strength, or the greatest below it by which held-out items (M, F) lose no more than a standard error.

        Nor may half of the effective draws go.
        """
        real, least = self.cells.columns(reference), KEPT * effective(self.log_weight)
        for weaker in np.arange(strength, 1.0, -STEP):
            held = held_out_gains(real, self.made, fold, self.pseudo, self.theta, weaker)
            if held.mean() > -standard_error(held) and effective(weaker * self.log_weight) >= least:
                return float(weaker)
        return 1.0

    def energy(self, strength: float) -> CellEnergy:
        """As a module."""
        mean, axes = torch.from_numpy(self.cells.mean), torch.from_numpy(self.cells.axes)
        heights = strength * self.cells.heights(self.theta)
        energies = -strength * (self.made @ self.theta + self.cells.share @ (self.cells.basis @ self.theta))
        span = torch.tensor([energies.min(), energies.max()])
        figures = float(self.held.mean()), standard_error(self.held)
        return CellEnergy(mean, axes, self.cells.centres, self.cells.widths, heights, span, *figures)


def gains(held: Array, errors: float = 1.0) -> bool:
    """Whether held-out items gain more than their standard error, or so many of them."""
    return bool(held.mean() > errors * standard_error(held))


def effective(log_weight: Array) -> float:
    """Effective sample size, in draws."""
    return float(1 / np.square(softmax(log_weight)).sum())


def standard_error(held: Array) -> float:
    """Of the mean."""
    return float(held.std() / np.sqrt(len(held)))
