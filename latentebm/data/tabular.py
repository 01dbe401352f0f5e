"""Tables as tensors: the ISLR credit-card defaults."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from latentebm.checks import check_number
from latentebm.data.shipped import shipped_file

__all__ = ["TableSplit", "load_default"]


class TableSplit(NamedTuple):
    """Standardised features (N, D) and labels (N,) of the training and the test rows, and the features' names."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    columns: list[str]


def load_default(*, test_share: float = 0.3, seed: int = 0) -> TableSplit:
    """Load ``Default``: 10,000 simulated card holders, 3.33 % of whom default on their payments (label 1).

    The data are of An Introduction to Statistical Learning (James et al., 2013). The split keeps the share of defaults;
    features are standardised by the training rows' mean and sd.

    Example:
        >>> data = load_default()
        >>> tuple(data.x_train.shape), len(data.x_test), data.columns
        ((7000, 3), 3000, ['student', 'balance', 'income'])
    """
    check_number("test_share", test_share, low=0.001, high=0.999)
    table = pd.read_csv(shipped_file("default.csv"))
    y = (table["default"] == "Yes").to_numpy(dtype=np.int64)
    columns = ["student", "balance", "income"]
    x = table[columns].assign(student=(table["student"] == "Yes").astype(float)).to_numpy(dtype=np.float64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=test_share, stratify=y, random_state=seed)
    mean, sd = x_train.mean(0), x_train.std(0)
    features = [torch.from_numpy((part - mean) / sd).float() for part in (x_train, x_test)]
    return TableSplit(features[0], torch.from_numpy(y_train), features[1], torch.from_numpy(y_test), columns)
