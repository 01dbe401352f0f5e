"""Apply a mechanism to data: to arrays, tensors and frames at once, and to datasets item by item."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentebm.checks import check_number, fail
from latentebm.missing.mechanisms.columns import MAR, MCAR, SelfMasking
from latentebm.missing.mechanisms.mechanism import Mechanism, MissingDataWarning
from latentebm.missing.mechanisms.table import Table

__all__ = ["MNARDataset", "make_missing", "make_missing_values"]

Seed = int | np.random.Generator | None


def make_missing(
    X: Any, mechanism: Mechanism, rate: float | None = None, *, y: Any = None, random_state: Seed = None
) -> tuple[Any, Any]:
    r"""Data of the same kind without the cells that a mechanism removes, and the mask, True = observed.

    .. math:: \mathrm{E}[1 - s_{ij}] = r \text{ over the cells the mechanism may remove}, \quad
              \tilde x_{ij} = x_{ij} \text{ where } s_{ij} = 1 \text{, else NaN}

    Cells of `X` that are NaN already stay missing (mask 0) and do not count in the rate. Integers become floats,
    since only floats hold NaN; in a DataFrame columns become what pandas makes of a missing value.

    Arguments:
        X: complete data, numpy array or torch tensor (N, …), or DataFrame of D columns; not changed. What a masked
            array hides is missing already.
        rate: expected share of removed cells among the columns the mechanism works on, in [0, 1); None where the
            mechanism has a strength of its own.
        y: labels (N,), or a function that returns them, for mechanisms that depend on them.
        random_state: seed or numpy generator; the same seed gives the same mask.

    Raises:
        ValueError: a rate that cannot be reached, or X holds infinite values or text the mechanism depends on.

    Example:
        >>> X = np.arange(6.0).reshape(3, 2)
        >>> X_missing, mask = make_missing(X, SelfMasking("hard", columns=[1]), rate=1 / 3, random_state=0)
        >>> X_missing[:, 1], mask.sum(axis=0)
        (array([ 1.,  3., nan]), array([3, 2]))
    """
    if not isinstance(mechanism, Mechanism):
        raise fail("mechanism", "a Mechanism object", repr(mechanism), "pass for example MCAR()")
    rate = None if rate is None else check_number("rate", rate, low=0, high=1, fix="pass a share of [0, 1)")
    if rate == 1:
        raise fail("rate", "a share of [0, 1)", rate, "pass a smaller one")
    table = Table(X, y)
    by_column = table.seen.copy()
    for columns, rows in mechanism.remove(table, rate, np.random.default_rng(random_state)):
        if np.shape(rows) != table.shape[:1] or np.asarray(rows).dtype != bool:
            expected = f"boolean rows of shape {table.shape[:1]} from {type(mechanism).__name__}.remove"
            raise fail("mechanism", expected, np.shape(rows), "yield True for each row to remove")
        by_column[list(columns)] &= ~rows
    mask = np.ascontiguousarray(by_column.T)
    empty = [int((~mask.any(axis=axis)).sum()) for axis in (1, 0)]
    if any(empty):
        warnings.warn("{} rows and {} columns have no observed cell left".format(*empty), MissingDataWarning, 2)
    return table.rebuild(mask)


def make_missing_values(
    X: Any, *, mcar_rate: float = 0.0, mar_rate: float = 0.0, mnar_rate: float = 0.0, random_state: Seed = None
) -> tuple[Any, Any]:
    r"""Remove cells by all three kinds at once, each taking its own share of the cells.

    .. math:: \mathrm{E}[1 - s_{ij}] = r_\mathrm{MCAR} + r_\mathrm{MAR} + r_\mathrm{MNAR}, \quad j > 0

    The first column stays complete: it drives the MAR share (logistic). The MNAR share is logistic self-masking of
    high values. Each kind works on what the one before left, with its rate of all cells.

    Data, seed and result are those of :func:`make_missing`; X (N, D) has at least two columns.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(2000, 5))
        >>> _, mask = make_missing_values(X, mcar_rate=0.1, mar_rate=0.1, mnar_rate=0.1, random_state=0)
        >>> round(1 - float(mask[:, 1:].mean()), 1)
        0.3
    """
    given = {"mcar_rate": mcar_rate, "mar_rate": mar_rate, "mnar_rate": mnar_rate}
    rates = [check_number(name, rate, low=0, high=1) for name, rate in given.items()]
    if sum(rates) >= 1:
        raise fail("rates", "a sum below 1", sum(rates), "lower them")
    columns = Table(X).shape[1]
    if columns < 2:
        raise fail("X", "at least two columns, of which the first drives MAR", columns, "use make_missing")
    rng = np.random.default_rng(random_state)
    others, left, mask = list(range(1, columns)), 1.0, None
    for mechanism, rate in zip((MCAR(others), MAR([0], others), SelfMasking(columns=others)), rates, strict=True):
        X, mask = make_missing(X, mechanism, rate=rate / left, random_state=rng)
        left -= rate
    return X, mask


class MNARDataset(Dataset[tuple[Tensor, ...]]):
    r"""Items of a dataset with cells removed by a mechanism: ``(x, mask)``, or ``(x, mask, y)`` where it has labels.

    .. math:: x_j \leftarrow \mathrm{fill} \text{ where } s_j = 0, \qquad s_j = 1 \text{ observed}

    The dataset is read once to draw every mask, since rates and thresholds belong to the whole of it; masks then stay
    fixed, the same for any order, number of workers and epoch. Labels are read
    only where the mechanism asks for them. Items are read from the dataset as they are asked for;
    a transform that changes at random would no longer match its mask, so apply such transforms after this dataset.

    Arguments:
        dataset: map-style dataset of tensors, or of tuples (x, y, …) whose first entry is a tensor (torchvision: pass
            ``transform=ToTensor()``), or a tensor (N, …).
        mechanism, rate, seed: as in :func:`make_missing`.
        fill: value at missing cells; NaN by default.

    Example:
        >>> items = MNARDataset(torch.rand(8, 5), MCAR(), rate=0.4, seed=0)
        >>> x, mask = items[0]
        >>> bool((x.isnan() == ~mask).all()), len(items)
        (True, 8)
    """

    def __init__(
        self, dataset: Any, mechanism: Mechanism, *, rate: float | None = None, seed: int = 0, fill: float = math.nan
    ) -> None:
        if len(dataset) == 0:
            raise fail("dataset", "at least one item", 0, "pass a dataset that holds data")
        self.dataset, self.fill = dataset, fill
        x = torch.stack([self._item(i)[0] for i in range(len(dataset))])
        labelled = len(self._item(0)) > 1
        y = (lambda: [self._label(i) for i in range(len(dataset))]) if labelled else None
        # A row of numbers and a flat dataset of scalars are both fine: the mechanism sees (N, D).
        _, mask = make_missing(x.reshape(len(x), -1) if x.ndim < 2 else x, mechanism, rate, y=y, random_state=seed)
        self.mask: Tensor = mask.reshape(x.shape)

    def _item(self, index: int) -> tuple[Any, ...]:
        item = self.dataset[index]
        parts = tuple(item) if isinstance(item, tuple | list) else (item,)
        if not isinstance(parts[0], Tensor):
            got, fix = type(parts[0]).__name__, "pass transform=ToTensor() to the dataset"
            raise fail("dataset", "items whose first entry is a tensor", got, fix)
        return parts

    def _label(self, index: int) -> Any:
        """The second entry of an item as a plain number or text; mechanisms compare labels by equality."""
        label = self._item(index)[1]
        if isinstance(label, Tensor | np.ndarray | np.generic) and math.prod(label.shape) == 1:
            return label.item()
        if isinstance(label, str | bytes | int | float):
            return label
        fix = "pass a dataset of (x, label) items, or a mechanism that needs no labels"
        raise fail("dataset", "items whose second entry is one number or text", type(label).__name__, fix)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, *rest = self._item(index)
        mask = self.mask[index]
        floats = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return (floats.masked_fill(~mask, self.fill), mask, *rest[:1])
