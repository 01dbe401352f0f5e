"""Models of the mask given the completed row, p(s | x)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_choice, fail
from latentebm.missing.mixed_likelihoods import MixedLikelihood

__all__ = ["MISSING_MODELS", "MissingModel"]

MISSING_MODELS = ("self-masking", "self-masking-known", "agnostic")


class MissingModel(nn.Module):
    r"""Logistic model of which cells are observed, given the completed row.

    .. math:: P(s_j = 1 \mid x) = \sigma(-w_j x_j + b_j) \text{ (self-masking)}, \qquad
              \sigma(-(Wx)_j + b_j) \text{ (agnostic)}

    With a known direction, w is a softplus times its sign: + where large values go missing.

    Arguments:
        kind: ``self-masking``, ``self-masking-known`` or ``agnostic``.
        likelihood: the columns' families; classes enter one-hot.
        signs: +1 or −1 per column, for ``self-masking-known``; + by default.

    Raises:
        ValueError: an unknown kind, or signs of another length or value.

    References:
        not-MIWAE: Deep generative modelling with missing not at random data (Ipsen, Mattei and Frellsen, 2021),
        https://arxiv.org/abs/2006.12871

    Example:
        >>> model = MissingModel("self-masking-known", MixedLikelihood(["gaussian", "gaussian"]))
        >>> mask = torch.ones(1, 2)
        >>> bool(model.log_prob(mask, torch.zeros(1, 2)) > model.log_prob(mask, torch.ones(1, 2)))
        True
    """

    signs: Tensor
    column: Tensor

    def __init__(self, kind: str, likelihood: MixedLikelihood, signs: Sequence[int] | None = None) -> None:
        super().__init__()
        self.kind = check_choice("missing_model", kind, MISSING_MODELS)
        columns, features = likelihood.n_columns, likelihood.n_features
        signs = [1] * columns if signs is None else list(signs)
        if len(signs) != columns or not set(signs) <= {-1, 1}:
            raise fail("signs", f"{columns} of +1 or -1", signs, "pass +1 where large values go missing")
        self.register_buffer("signs", torch.tensor(signs, dtype=torch.get_default_dtype()))
        self.register_buffer("column", likelihood.feature_column)
        self.one_each = torch.equal(likelihood.feature_column, torch.arange(columns))
        shape = (features, columns) if kind == "agnostic" else (features,)
        # A known direction is believed from the start: a slope of 3 per standard deviation, learned from there on.
        start = 3.0 if kind == "self-masking-known" else 0.0
        self.weight = nn.Parameter(torch.full(shape, start))
        self.bias = nn.Parameter(torch.zeros(columns))

    def log_prob(self, mask: Tensor, features: Tensor) -> Tensor:
        """Log-probability (…) of masks (…, D) given features (…, F) of completed rows, nats."""
        logits = self.bias - self._drive(features)
        return -F.binary_cross_entropy_with_logits(logits, mask.expand_as(logits), reduction="none").sum(-1)

    def _drive(self, features: Tensor) -> Tensor:
        if self.kind == "agnostic":
            return features @ self.weight
        weight: Tensor = self.weight
        if self.kind == "self-masking-known":
            weight = F.softplus(weight) * self.signs[self.column]
        if self.one_each:  # one feature per column, in order: nothing to sum
            return features * weight
        drive = features.new_zeros(*features.shape[:-1], len(self.bias))
        return drive.index_add(-1, self.column, features * weight)
