"""What a table is good for: a classifier trained on generated rows and tested on real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OrdinalEncoder

from latentebm.checks import fail

__all__ = ["train_on_made"]

MOST_CATEGORIES = 255  # of a column that gradient boosting splits as categories
MOST_CLASSES = 50


def train_on_made(
    made: pd.DataFrame, test: pd.DataFrame, label: Any, *, by: Any = None, seed: int = 0
) -> dict[str, float]:  # fmt: skip
    """Train gradient boosting on made rows to predict a label, and test it on real rows.

    Returns:
        ``auc`` (one against the rest where there are more than two classes), ``accuracy``, and, with `by`, ``gap``: the
        largest difference between two groups' shares of a predicted class on the real rows.

    Raises:
        ValueError: a label without at least two classes among the made rows.

    References:
        Real-valued (medical) time series generation with recurrent conditional GANs (Esteban et al., 2017), which names
        this test, https://arxiv.org/abs/1706.02633

    Example:
        >>> table = pd.DataFrame({"x": range(200), "y": ["a"] * 100 + ["b"] * 100})
        >>> train_on_made(table[::2], table[1::2], "y")["accuracy"] > 0.9
        True
    """
    made, test = made[made[label].notna()], test[test[label].notna()]
    classes = sorted(made[label].astype(str).unique())
    if not 2 <= len(classes) <= MOST_CLASSES:
        fix = "pass another column as the label"
        raise fail("label", f"2 to {MOST_CLASSES} classes in {label!r}", len(classes), fix)
    x, x_test, categorical = _encoded(made.drop(columns=label), test.drop(columns=label))
    model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed)
    p = model.fit(x, made[label].astype(str)).predict_proba(x_test)
    truth, predicted = test[label].astype(str).to_numpy(), np.array(model.classes_)[p.argmax(1)]
    found = {"auc": _auc(truth, p, list(model.classes_)), "accuracy": float((truth == predicted).mean())}
    if by is not None:
        shares = pd.crosstab(test[by].astype(str).to_numpy(), predicted, normalize="index")
        found["gap"] = float((shares.max() - shares.min()).max())
    return found


def _auc(truth: np.ndarray, p: np.ndarray, classes: list[str]) -> float:
    if len(classes) == 2:
        return float(roc_auc_score(truth == classes[1], p[:, 1]))
    each = [(truth == c, p[:, k]) for k, c in enumerate(classes)]
    return float(np.mean([roc_auc_score(is_c, q) for is_c, q in each if 0 < is_c.mean() < 1]))


def _encoded(made: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Features of both tables as numbers, and which columns are categories; values that were not made are missing."""
    columns, categorical = [], []
    for name in made.columns:
        a, b = made[[name]], test[[name]]
        dtype = a[name].dtype
        if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype):
            a, b = (t.astype("int64").where(t.notna()) for t in (a, b))
        elif not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
            encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
            texts = [t.astype(object).where(t.notna(), "").astype(str) for t in (a, b)]
            a, b = (pd.DataFrame(encoder.fit(texts[0]).transform(t)) for t in texts)
            categorical.append(len(encoder.categories_[0]) <= MOST_CATEGORIES)
            columns.append((a.to_numpy(), b.to_numpy()))
            continue
        numbers = tuple(t.to_numpy(dtype=np.float64, na_value=np.nan) for t in (a, b))
        if not np.isnan(numbers[0]).all():  # a column without a value teaches nothing, and trees refuse it
            categorical.append(False)
            columns.append(numbers)
    return np.hstack([c[0] for c in columns]), np.hstack([c[1] for c in columns]), categorical
