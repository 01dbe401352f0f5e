"""Rows of a tilt, by importance resampling of blocks, under a condition or none."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from latentebm.checks import fail
from latentebm.sampling.importance.resampling import resample
from latentebm.sampling.importance.weights import WeightSums
from latentebm.tables.row_source import RowSource, Where
from latentebm.tables.row_tilt import RowTilt

__all__ = ["draw_rows"]

PILOT = 4096  # rows that tell how many are needed
MOST_PILOT = 2**18  # rows in which a condition must be met at all
ENOUGH = 32  # rows of the pilot that must meet it
BLOCK = 20_000  # rows resampled together
MOST_POOL = 2**19  # rows drawn for one block


def draw_rows(
    source: RowSource, tilt: RowTilt, n: int, generator: torch.Generator, where: Where | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Draw n rows of the tilt, and how well the weights carried them.

    A pilot tells the largest weight in means; so many rows per draw are generated, where there is room, that systematic
    resampling gives hardly any row twice. The number of rows generated is bounded, whatever the condition.

    Raises:
        ValueError: no row that meets the condition among the first 262,144.
    """
    ratio = _pilot(source, tilt, generator, where)
    parts, seen, repeated = [], [], 0
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        pool = min(MOST_POOL, max(PILOT, math.ceil(1.05 * size * ratio)))
        drawn = source.draw(pool, generator, where, names=tilt.reads)
        log_weight = tilt.log_weight(drawn)
        index = resample(log_weight, size, resampling="systematic", generator=generator)
        parts.append(drawn.table(index))
        repeated += size - len(index.unique())
        seen.append(WeightSums(pool))
        seen[-1].add(log_weight)
    table = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    tails = [s.pareto_k for s in seen if s.pareto_k is not None]
    report = {"ess": sum(s.ess for s in seen) / len(seen), "pareto_k": max(tails, default=None)}
    return table, {**report, "generated": sum(s.size for s in seen), "repeated": repeated / n}


def _pilot(source: RowSource, tilt: RowTilt, generator: torch.Generator, where: Where | None) -> float:
    """Largest weight over the mean weight, in a pilot that is enlarged until the condition is met often enough."""
    size = PILOT
    while True:
        log_weight = tilt.log_weight(source.draw(size, generator, where, names=tilt.reads))
        met = int((log_weight > -torch.inf).sum())
        if met >= ENOUGH or (size >= MOST_PILOT and met):
            return float(log_weight.max().exp() / log_weight.exp().mean())
        if size >= MOST_PILOT:
            said = ", ".join(f"{c}={v!r}" for c, v in (where or {}).items())
            fix = "relax it, or train the model on some such rows"
            raise fail("where", f"a condition that the model's rows meet, {said}", f"none of {size:,}", fix)
        size *= 8
