"""A map-style dataset with missing values, for DataLoaders."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentebm.checks import fail
from latentebm.missing.mechanisms.make import make_missing
from latentebm.missing.mechanisms.mechanism import Mechanism

__all__ = ["MNARDataset"]


class MNARDataset(Dataset[tuple[Tensor, ...]]):
    r"""Items of a dataset with cells removed by a mechanism: ``(x, mask)``, or ``(x, mask, y)`` where it has labels.

    .. math:: x_j \leftarrow \mathrm{fill} \text{ where } s_j = 0, \qquad s_j = 1 \text{ observed}

    The dataset is read once to draw every mask, since rates and thresholds belong to the whole of it; masks then stay
    fixed, the same for any order, number of workers and epoch. Items are read from the dataset as they are asked for;
    a transform that changes at random would no longer match its mask, so apply such transforms after this dataset.

    Arguments:
        dataset: map-style dataset of tensors, or of tuples (x, y, …) whose first entry is a tensor (torchvision: pass
            ``transform=ToTensor()``), or a tensor (N, …).
        mechanism, rate: which cells go, and their expected share, as in :func:`make_missing`.
        seed: of the masks.
        fill: value at missing cells; NaN by default.

    Raises:
        ValueError: the dataset is empty or its items are no tensors of one shape, or as :func:`make_missing`.

    Example:
        >>> from latentebm.missing.mechanisms import MCAR
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
        items = [self._item(i) for i in range(len(dataset))]
        x = torch.stack([item[0] for item in items])
        y = [int(item[1]) for item in items] if len(items[0]) > 1 else None
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

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, *rest = self._item(index)
        mask = self.mask[index]
        floats = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return (floats.masked_fill(~mask, self.fill), mask, *rest[:1])
