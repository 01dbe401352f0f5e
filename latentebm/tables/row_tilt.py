"""The tilt of a generator of rows: weights on rows that give targets their shares, or a reference its distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import fail
from latentebm.models.energies import EnergyNet
from latentebm.progress import Track, silent
from latentebm.sampling.importance.moments import moment_weights
from latentebm.sampling.importance.weights import WeightSums, normalised
from latentebm.tables.moments_of_rows import Moment, Rows
from latentebm.tables.parity import Parity
from latentebm.tables.row_source import DrawnRows, RowSource
from latentebm.tables.table_code import TableCode
from latentebm.tables.targets import Target
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.sides import Codes

__all__ = ["CodeEnergy", "RowTilt", "fit_reference", "fit_targets"]

TOLERANCE = 2e-3  # of a share, on the pool, beyond which a target counts as out of reach
FEWEST = 100  # effective rows of the pool below which a target rests on too few of them
HIDDEN = 16  # units of the energy learned from a reference: more learn the pool's rows by heart
RECIPE = TiltRecipe(steps=400, lr=5e-3, patience=6, weight_decay=0.3)
LIMIT = 6.0  # nats: bound of the energy learned from a reference


class CodeEnergy(nn.Module):
    """An ensemble of perceptrons that reads coded rows (N, D) one-hot."""

    def __init__(self, sizes: Sequence[int], members: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.sizes, self.config = list(sizes), {"sizes": list(sizes), "members": members}
        self.net = EnergyNet(sum(sizes), hidden=(HIDDEN,), members=members, limit=LIMIT, generator=generator)

    def one_hot(self, codes: Tensor) -> Tensor:
        """Indicators (N, ΣC) of codes (N, D)."""
        return torch.cat([F.one_hot(x, size) for x, size in zip(codes.T, self.sizes, strict=True)], 1).float()

    @torch.no_grad()
    def forward(self, codes: Tensor) -> Tensor:
        """Energies (N,) in nats of codes (N, D)."""
        return torch.cat([self.net(self.one_hot(part)) for part in codes.split(8192)])


class RowTilt:
    r"""Log-weights of rows, :math:`\log w(x) = \theta^\top f(x) - E(x)`, whose energy −log w is low on wanted rows.

    Attributes:
        moments: what the targets ask of the features f, of which there may be none.
        theta: (F,).
        energy: learned from a reference table, or None.
    """

    def __init__(self, moments: Sequence[Moment], theta: np.ndarray, energy: CodeEnergy | None = None) -> None:
        self.moments, self.theta, self.energy = list(moments), theta, energy

    @property
    def columns(self) -> list[Any]:
        """Columns that the features read."""
        terms = [term for moment in self.moments for term in moment.terms]
        named = [c for term in terms for c in (*dict(term.where), term.column) if c is not None]
        return list(dict.fromkeys(named))

    @property
    def reads(self) -> list[Any] | None:
        """Columns that the log-weight depends on, None for all."""
        return None if self.energy is not None else self.columns

    def log_weight(self, drawn: DrawnRows) -> Tensor:
        """Log-weights (N,) of drawn rows, those of their condition included."""
        total = drawn.log_weight
        if self.moments:
            table = drawn.table(torch.arange(len(total)), self.columns)
            total = total + torch.from_numpy(Rows(table).features(self.moments) @ self.theta)
        return total if self.energy is None else total - self.energy(drawn.codes()).double()


def fit_targets(
    source: RowSource, targets: Sequence[Target], reference: pd.DataFrame | None, *, pool: int,
    generator: torch.Generator,
) -> RowTilt:  # fmt: skip
    """The weights nearest to none, in KL, under which a source's rows meet every target.

    Raises:
        ValueError: a target's cell that no row of the pool has, targets that no weights reach, or that fewer than 100
            effective rows would carry.
    """
    names = list(dict.fromkeys(c for t in targets for c in t.columns()))
    drawn = source.draw(pool, generator, names=names)
    rows = Rows(drawn.table(torch.arange(pool), names))
    wanted = None if reference is None else Rows(reference[names])
    shares = [m for t in targets if not isinstance(t, Parity) for m in t.moments(rows, wanted)]
    parities = [t for t in targets if isinstance(t, Parity)]
    # Parity keeps marginal shares: those that the other targets give.
    moved = Rows(rows.table, softmax(rows.features(shares) @ _solved(rows, shares))) if shares and parities else rows
    moments = [*shares, *(m for t in parities for m in t.moments(moved, wanted))]
    tilt = RowTilt(moments, _solved(rows, moments))
    effective = pool * weighed(torch.from_numpy(rows.features(moments) @ tilt.theta))["ess"]
    if effective < FEWEST:
        got = f"{effective:.0f} of {pool:,}"
        fix = "ask for a smaller change, enlarge the pool, or train on more of what is rare"
        raise fail("target", f"one that at least {FEWEST} effective rows of the pool carry", got, fix)
    return tilt


def _solved(rows: Rows, moments: Sequence[Moment]) -> np.ndarray:
    """Natural parameters (F,) that give every moment its mean; ValueError where no weights do."""
    goal = np.array([m.goal for m in moments])
    # At most t is at least −t of the negative.
    sign = np.array([-1.0 if m.bound == "at_most" else 1.0 for m in moments])
    low = np.array([m.bound != "equal" for m in moments])
    theta, mean = moment_weights(rows.features(moments) * sign, goal * sign, at_least=low)
    short = goal * sign - mean
    _check_reached(moments, np.where(low, np.maximum(short, 0), np.abs(short)), mean * sign)
    return theta * sign


def _check_reached(moments: Sequence[Moment], short: np.ndarray, mean: np.ndarray) -> None:
    if not short.max(initial=0) <= TOLERANCE:
        worst = int(short.argmax())
        moment = moments[worst]
        nearest = mean[worst] + (moment.offset or 0.0)
        got = f"{moment.name}: {nearest:.3f} at the nearest, {moment.wanted:.3f} wanted"
        fix = "relax it or the targets that contradict it, or train the model on more such rows"
        raise fail("target", "shares that weights on the model's rows reach together", got, fix)


def fit_reference(
    source: RowSource, reference: pd.DataFrame, *, pool: int, folds: int = 5, recipe: TiltRecipe | None = None,
    generator: torch.Generator, track: Track = silent,
) -> tuple[RowTilt, float]:  # fmt: skip
    r"""Tilt to a reference table without targets or labels, and its held-out gain in nats per row.

    .. math:: \max_E\; -\mathrm{mean}_i\, E(x_i) - \log E_{p}\big[e^{-E(x)}\big]

    Each member of the ensemble is fitted without one fold of the reference and kept at its best score there.

    Raises:
        ValueError: a reference without the columns or with other categories than the fit's.
    """
    code: TableCode = source.code
    members = min(folds, len(reference))
    energy = CodeEnergy(code.sizes, members, generator)
    real, made = energy.one_hot(code.encode(reference)), energy.one_hot(source.draw(pool, generator).codes())
    sides = Codes.split(real, torch.zeros(()).expand(real.shape), members, generator, drawn=made)
    result = fit_energy(energy.net, sides, recipe or RECIPE, generator=generator, track=track)
    energy.requires_grad_(False)
    return RowTilt([], np.zeros(0), energy), float(-result.best.mean())


def weighed(log_weight: Tensor) -> dict[str, float | int | bool]:
    """ESS, Pareto-k̂, log Z with its standard error, and KL of the tilted from the untilted rows in nats."""
    sums = WeightSums(len(log_weight))
    sums.add(log_weight)
    w = normalised(log_weight)
    return {**sums.report(), "kl": float(torch.special.xlogy(w, w * len(w)).sum())}
