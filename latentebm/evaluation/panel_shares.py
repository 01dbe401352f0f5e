"""Class shares as a panel of judges reads them, with an interval that knows how far the judges disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.evaluation.shares import class_shares, total_variation
from latentebm.rng import child

__all__ = ["PanelShares", "panel_shares"]

RESAMPLES, Z = 200, 1.96


@dataclass(frozen=True, kw_only=True)
class PanelShares:
    """What a panel reads off a set of images; every interval is of 95 %."""

    shares: list[float]  # mean over the strangers
    shares_interval: list[tuple[float, float]]
    tv: float  # total variation of these shares to the target
    tv_interval: tuple[float, float]
    each: dict[str, dict[str, Any]]  # shares and tv of each stranger alone
    meant: dict[str, Any]  # shares and tv as the insider reads them
    disagreed: float  # share of images that not all strangers read alike


def panel_shares(
    seen: Tensor,
    meant: Tensor,
    names: Sequence[str],
    classes: Sequence[int],
    target: Sequence[float],
    *,
    generator: torch.Generator,
) -> PanelShares:
    r"""Mean shares of J judges, and intervals that hold both the draws' and the judges' spread.

    .. math:: \bar p_k \pm 1.96 \sqrt{\sigma_k^2 + s_k^2 / J}

    σ is the standard error over images (of the total variation by the bootstrap), s the standard deviation between
    judges.

    Arguments:
        seen: classes that J judges read off N images, (J, N).
        meant: classes that the insider reads, (N,).
        names: of the J judges.
        classes: the target's.
        target: wanted share of each.
        generator: source of the bootstrap.

    Raises:
        ValueError: no images, or another number of names.

    Example:
        >>> seen, rng = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]), torch.Generator().manual_seed(0)
        >>> found = panel_shares(seen, seen[0], ("a", "b"), (0, 1), (0.5, 0.5), generator=rng)
        >>> found.shares, found.tv, found.each["b"]["tv"], found.disagreed
        ([0.375, 0.625], 0.125, 0.25, 0.25)
    """
    judges, n = seen.shape
    if not n or len(names) != judges:
        raise fail("seen", f"shape ({len(names)}, N), at least one image", tuple(seen.shape), "name every judge")
    alone = {name: _alone(row, classes, target) for name, row in zip(names, seen, strict=True)}
    own = torch.tensor([row["shares"] for row in alone.values()], dtype=torch.double)
    votes = (seen[:, :, None] == torch.tensor(list(classes))).double().mean(0)
    mean = votes.mean(0)
    half = Z * (votes.var(0, correction=0) / n + _between(own)).sqrt()
    tv = total_variation(mean.tolist(), target)
    spread = _between(torch.tensor([[row["tv"]] for row in alone.values()], dtype=torch.double))
    wide = Z * float((_sampling_variance(votes, target, generator) + spread).sqrt())
    return PanelShares(
        shares=mean.tolist(),
        shares_interval=list(
            zip((mean - half).clamp_min(0).tolist(), (mean + half).clamp_max(1).tolist(), strict=True)
        ),
        tv=tv,
        tv_interval=(max(0.0, tv - wide), min(1.0, tv + wide)),
        each=alone,
        meant=_alone(meant, classes, target),
        disagreed=float((seen != seen[0]).any(0).double().mean()),
    )


def _alone(read: Tensor, classes: Sequence[int], target: Sequence[float]) -> dict[str, Any]:
    shares = class_shares(read, classes)
    return {"shares": shares, "tv": total_variation(shares, target)}


def _between(own: Tensor) -> Tensor:
    """Variance of the mean over judges, of one row each."""
    return own.var(0) / len(own) if len(own) > 1 else torch.zeros_like(own[0])


def _sampling_variance(votes: Tensor, target: Sequence[float], generator: torch.Generator) -> Tensor:
    """Bootstrap variance of the total variation over images, each with its votes (N, K)."""
    n, cpu = len(votes), child(generator)
    found = []
    for _ in range(RESAMPLES):
        times = torch.bincount(torch.randint(n, (n,), generator=cpu), minlength=n).double()
        found.append(total_variation((times @ votes / n).tolist(), target))
    return torch.tensor(found, dtype=torch.double).var()
