"""MIWAE and not-MIWAE: variational autoencoders for rows with missing cells, and models of the mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_choice, check_event, check_int, fail
from latentebm.missing.bound import Terms
from latentebm.missing.mixed_likelihoods import MixedLikelihood
from latentebm.rng import normal

__all__ = ["MIWAE", "MissingModel", "check_rows"]

DECODERS = ("mlp", "linear")
MISSING_MODELS = ("self-masking", "self-masking-known", "agnostic")


class MissingModel(nn.Module):
    r"""Logistic model of which cells are observed, given the completed row.

    .. math:: P(s_j = 1 \mid x) = \sigma(-w_j x_j + b_j) \text{ (self-masking)}, \qquad
              \sigma(-(Wx)_j + b_j) \text{ (agnostic)}

    With a known direction, w is a softplus times a sign per column: +1 (the default) where large values go, else −1.
    Classes enter one-hot.

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


class LinearDecoder(nn.Module):
    r"""Decoder of probabilistic PCA, :math:`x = Wz + \mu + \sigma\varepsilon`, one noise scale for all columns."""

    def __init__(self, latent_dim: int, columns: int) -> None:
        super().__init__()
        self.mean = nn.Linear(latent_dim, columns)
        self.raw_scale = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor) -> Tensor:
        """Means and raw scales, (…, 2 D)."""
        mean = self.mean(z)
        return torch.cat([mean, self.raw_scale.expand_as(mean)], -1)


class MIWAE(nn.Module):
    r"""Variational autoencoder of incomplete rows; with a missing model, the not-MIWAE.

    .. math:: z \sim N(0, I), \quad x_j \sim p_j(x_j | f(z)), \quad s \sim p(s|x), \qquad
              q(z|x_{obs}) = N(\mu(x_{obs}), \mathrm{diag}\,\sigma^2(x_{obs}))

    The encoder reads the mask, and zeros where cells are missing: standardise numeric columns, so that a zero is the
    mean.

    Arguments:
        families: likelihood of each column, as :class:`MixedLikelihood` takes them.
        width: hidden units of the two hidden layers of each network.
        decoder: ``mlp``, or ``linear`` for the probabilistic-PCA form (Gaussian columns only).
        missing_model, signs: None, or a kind of :class:`MissingModel` and its signs.

    References:
        MIWAE: Deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Example:
        >>> model = MIWAE(["gaussian"] * 3, latent_dim=2, width=16)
        >>> x, mask = torch.zeros(4, 3), torch.ones(4, 3)
        >>> model.terms(x, mask, 5, generator=torch.Generator().manual_seed(0)).log_likelihood.shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        families: Sequence[str | tuple[str, int]],
        latent_dim: int = 10,
        *,
        width: int = 128,
        decoder: Literal["mlp", "linear"] = "mlp",
        missing_model: Literal["self-masking", "self-masking-known", "agnostic"] | None = None,
        signs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.likelihood = like = MixedLikelihood(families)
        self.latent_dim = check_int("latent_dim", latent_dim)
        hidden = (check_int("width", width), width)
        self.encoder = _tanh_mlp((like.n_features + like.n_columns, *hidden, 2 * latent_dim))
        if check_choice("decoder", decoder, DECODERS) == "mlp":
            self.decoder: nn.Module = _tanh_mlp((latent_dim, *hidden, like.n_parameters))
        elif set(families) == {"gaussian"}:
            self.decoder = LinearDecoder(latent_dim, like.n_columns)
        else:
            raise fail("decoder", "gaussian columns with decoder='linear'", list(families), "use decoder='mlp'")
        self.missing = None if missing_model is None else MissingModel(missing_model, like, signs)

    def posterior(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (N, d) of q(z | x_obs), for values (N, D) and masks (N, D)."""
        _check_shapes(x, mask)
        return self._posterior(self._observed(x, mask)[1], mask)

    def terms(
        self, x: Tensor, mask: Tensor, k: int, *, complete: bool = False, noise: Tensor | None = None,
        generator: torch.Generator,
    ) -> Terms:  # fmt: skip
        """Draw k latents per row of x (N, D) and evaluate every term of the bound.

        What x holds where the mask (N, D) is 0 is never read. With `complete`, missing cells are drawn even where no
        missing model asks for them. `noise` (K, N or 1, d) is what the codes are made of; drawn by default.
        """
        filled, observed, seen = self._observed(x, mask)
        mean, scale = self._posterior(observed, mask)
        if noise is None:
            noise = normal((check_int("k", k), *mean.shape), generator, mean)
        z = mean + scale * noise
        parameter = self.decoder(z)
        mask = mask.to(observed)
        cells = self.likelihood.log_prob(filled, parameter)
        completed, log_missing = observed, cells.new_zeros(cells.shape[:-1])
        if complete or self.missing is not None:
            completed = observed + (1 - seen) * self.likelihood.sample(parameter, generator)
        if self.missing is not None:
            log_missing = self.missing.log_prob(mask, completed)
        log_proposal = _log_normal(noise) - scale.log().sum(-1)
        return Terms(z, (cells * mask).sum(-1), _log_normal(z), log_proposal, log_missing, parameter, completed)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean rows (N, D) of codes (N, d), classes by their number; ValueError for another code length."""
        check_event("z", z, (self.latent_dim,))
        return self.likelihood.point(self.likelihood.mean(self.decoder(z)))

    @torch.no_grad()
    def draw_features(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Features (…, F) of rows drawn from p(x | z)."""
        return self.likelihood.sample(self.decoder(z), generator)

    def sample(self, z: Tensor, *, generator: torch.Generator) -> Tensor:
        """Rows (N, D) drawn from p(x | z), classes by their number; ValueError for another code length."""
        check_event("z", z, (self.latent_dim,))
        return self.likelihood.point(self.draw_features(z, generator))

    def _posterior(self, observed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(torch.cat([observed, mask.to(observed)], -1)).chunk(2, -1)
        # Bounded away from 0, where log-weights lose their meaning in float32.
        return mean, F.softplus(raw) + 1e-4

    def _observed(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (N, D) and features (N, F) of the observed cells, zeros elsewhere, and the mask of features."""
        check_event("x", x, (self.likelihood.n_columns,))
        filled = torch.where(mask.bool(), x, 0)  # a valid value of every family
        seen = mask.to(x)[:, self.likelihood.feature_column.to(mask.device)]
        return filled, self.likelihood.features(filled) * seen, seen


def check_rows(x: Tensor, mask: Tensor) -> None:
    """Raise ValueError unless there are rows, a mask of their shape, and finite values where it is 1."""
    _check_shapes(x, mask)
    if not bool((x.isfinite() | ~mask.bool()).all()):
        raise fail("x", "finite values where mask is 1", "NaN or infinity", "set mask to 0 in such cells")


def _check_shapes(x: Tensor, mask: Tensor) -> None:
    """The part of `check_rows` that reads no values, and so may run under vmap."""
    if not len(x):
        raise fail("x", "at least one row", tuple(x.shape), "pass rows of shape (N, D)")
    if mask.shape != x.shape:
        fix = "pass 1 = observed, 0 = missing for each cell"
        raise fail("mask", f"the shape of x, {tuple(x.shape)}", tuple(mask.shape), fix)


def _tanh_mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Perceptron with bounded units, which weaken the outliers of standardised tables before they reach the code."""
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        linear = nn.Linear(i, o)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
