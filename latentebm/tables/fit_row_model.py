"""The fit of the generator of rows by exact likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from latentebm.data.batches import Minibatches
from latentebm.progress import Track, silent
from latentebm.rng import seeded
from latentebm.tables.row_model import RowModel
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation

__all__ = ["fit_row_model", "steps_for"]

HELD_OUT = 0.1  # share of the rows that choose the model's state
BATCH = 256
PASSES = 6  # over the rows: with more the model learns them by heart, and its best state is one of a high rate
FEWEST, MOST = 100, 1000  # steps that passes may come to
CHECKS = 10  # of the held-out rows


def steps_for(rows: int) -> int:
    """Training steps of 256 rows where none are asked for: six passes over the rows, at least 100, at most 1000.

    Example:
        >>> steps_for(2000), steps_for(20_000), steps_for(10**6)
        (100, 469, 1000)
    """
    return min(MOST, max(FEWEST, math.ceil(PASSES * rows / BATCH)))


def fit_row_model(
    sizes: Sequence[int], codes: Tensor, order: Sequence[int], *, width: int, steps: int | None, lr: float,
    generator: torch.Generator, track: Track = silent,
) -> tuple[RowModel, float]:  # fmt: skip
    """A frozen model of coded rows (N, D), and the mean negative log-likelihood of a held-out row in nats.

    Arguments:
        sizes: number of codes of each column.
        codes: the rows, a tenth of which chooses the state that is kept.
        order: columns in the order they are drawn.
        width: hidden units of each column's perceptron.
        steps: training steps of 256 rows; None for six passes over the rows.
        lr: peak learning rate.
        generator: of the first weights, the held-out rows and the batches.
        track: shows the progress.
    """
    with seeded(generator):
        model = RowModel(sizes, order=order, width=width)
    codes = codes[torch.randperm(len(codes), generator=generator)]
    held = codes[: max(1, round(HELD_OUT * len(codes)))]
    rest = codes[len(held) :]
    steps = steps_for(len(rest)) if steps is None else steps
    epochs = math.ceil(steps / max(1, len(rest) // BATCH))
    result = fit(
        model,
        lambda batch: model.loss(batch[0]).mean(),
        Minibatches(rest, batch_size=BATCH, epochs=epochs, generator=generator),
        Optimisation(lr=lr, schedule="onecycle", weight_decay=1e-2),
        validate=lambda: -model.log_prob(held).mean(),
        every=max(1, steps // CHECKS),
        patience=CHECKS - 2,
        state=[generator],
        data=[held],
        track=track,
        description="rows",
    )
    return model.requires_grad_(False).eval(), float(result.best)
