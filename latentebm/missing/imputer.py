"""MIWAE and not-MIWAE behind scikit-learn's interface."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from latentebm.checks import check_choice, check_int, fail
from latentebm.devices import pick_device
from latentebm.missing.bound import iwae_bound
from latentebm.missing.codec import TableCodec, check_columns
from latentebm.missing.column_kinds import numbers_of
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.imputation import impute, impute_each
from latentebm.missing.mechanisms import MissingDataWarning
from latentebm.missing.miwae import MIWAE
from latentebm.missing.mixed_likelihoods import MixedLikelihood
from latentebm.missing.refits import fit_to_folds, refit_to_bootstraps
from latentebm.progress import Track, silent
from latentebm.rng import permutation, seeded, stream
from latentebm.training.logs import Log

__all__ = ["MIWAEImputer"]

HELD_OUT = 0.1  # share of the rows that chooses the state of one fit, where these are at least LEAST rows, at most MOST
LEAST, MOST = 10, 1000
FOLD, SMALL = 20, 2000  # rows that judge a member, and rows up to which several members are worth their time
AT_ONCE, CELLS = 20, 16_000_000  # refitted copies held side by side, and numbers of one of their arrays


@dataclass(kw_only=True, eq=False, repr=False)  # equality and text are scikit-learn's
class MIWAEImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Impute missing values by a deep latent variable model fitted to incomplete rows.

    .. math:: \hat x_{mis} = \sum_k \bar w_k\, \mathrm{E}[x_{mis}|z_k], \quad
              w_k = \frac{p(x_{obs}|z_k)\,p_0(z_k)\,[p(s|x)]}{q(z_k|x_{obs})}, \quad z_k \sim q(z|x_{obs})

    Rows and columns without an observed cell are kept: such a row gets the model's mean, such a column zeros, and a
    :class:`MissingDataWarning` says so. Constant columns are imputed by their constant. Arrays come back as float
    arrays, DataFrames as DataFrames with their index, names and text. Rows without a gap cost nothing.

    Arguments:
        likelihood: ``gaussian``, ``student_t``, ``bernoulli`` or ``categorical`` for all columns, or a mapping from
            column to family; numeric columns left out are ``gaussian``, flags ``categorical``. Text must be declared
            ``categorical``.
        bounds: (low, high) of what is imputed, by column. By default whole numbers stay whole, columns without negative
            numbers get none below their smallest, and columns within [0, 1] stay there; with a missing model, which may
            put lost values where none were seen, whole numbers alone.
        missing_model: None for a MIWAE (data missing at random), or for a not-MIWAE a kind of :class:`MissingModel`.
        direction: which values go missing, with ``self-masking-known``: ``high`` or ``low``, or column to either.
        decoder: ``mlp``, or ``linear`` for the probabilistic-PCA form.
        standardize: by the observed cells of each numeric column. Where these are a biased part and the columns'
            true scale is known, scale X by it and pass False.
        members: models whose imputations are averaged, each fitted to all rows but a fold of its own, which chooses its
            best state. One where there is a missing model, whose masks no held-out cell can judge, below 20 rows a
            fold, and above 2000 rows, where a held-out part suffices.
        width: hidden units of each hidden layer.
        k: importance draws per row in training; this, steps, batch_size and lr as in :class:`MIWAERecipe`.
        draws: importance draws per row in imputation.
        device: where the model computes: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
        random_state: seed of initial weights, training and imputation.

    Attributes:
        models_: the fitted members, :class:`MIWAE` over standardised columns.
        model_: the first of them.
        codec_: how columns become numbers.
        bound_: importance-weighted bound at the end of training, nats per row of the standardised table, mean of the
            members.

    Example:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).normal(size=(200, 1))
        >>> X = z @ np.ones((1, 3))
        >>> X[::2, 0] = np.nan
        >>> imputer = MIWAEImputer(latent_dim=1, width=16, steps=300, lr=0.01, draws=200)
        >>> done = imputer.fit(X).transform(X)
        >>> bool(np.abs(done[::2] - z[::2]).mean() < 0.3), bool((done[1::2] == X[1::2]).all())
        (True, True)
    """

    latent_dim: int = 10
    likelihood: str | Mapping[Any, str] = "gaussian"
    missing_model: Literal["self-masking", "self-masking-known", "agnostic"] | None = None
    direction: Literal["high", "low"] | Mapping[Any, str] = "high"
    decoder: Literal["mlp", "linear"] = "mlp"
    standardize: bool = True
    bounds: Mapping[Any, tuple[float, float]] | None = None
    members: int = 5
    width: int = 64
    k: int = 10
    steps: int = 1500
    batch_size: int = 64
    lr: float = 1e-3
    draws: int = 1000
    device: str = "auto"
    random_state: Any = 0
    track: Track = silent
    log: Log | None = None

    def fit(self, X: Any, y: Any = None) -> MIWAEImputer:
        """Fit the model to the observed cells of X, (N, D), NaN where missing; y is not used."""
        table = self._table(X, reset=True)
        recipe = MIWAERecipe(k=self.k, steps=self.steps, batch_size=self.batch_size, lr=self.lr)
        check_int("draws", self.draws)
        device = pick_device(self.device)
        self.codec_ = TableCodec(
            self.likelihood, standardize=self.standardize, bounds=self.bounds, ranges=self.missing_model is None
        ).fit(table)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        x, mask = self._encode(table)
        members = self._members(len(x))
        with seeded(self.seed_):
            self.models_ = [
                MIWAE(
                    self.codec_.families, self.latent_dim, width=self.width, decoder=self.decoder,
                    missing_model=self.missing_model, signs=self._signs(table),
                ).to(device) for _ in range(members)
            ]  # fmt: skip
        known: dict[str, Any] = {"generator": self._generator(), "track": self.track, "log": self.log}
        if members > 1:
            result = fit_to_folds(self.models_, x, mask, recipe, **known)
        else:
            train, held_out = _split(x, mask, 0.0 if self.missing_model else HELD_OUT, known["generator"])
            result = fit_miwae(self.models_[0], *train, recipe, held_out=held_out, **known)
        self.model_ = self.models_[0]
        self.rows_: tuple[Tensor, Tensor] = (x, mask)
        self.bootstraps_: list[MIWAE] = []
        self.bound_ = -result.losses[-1] / members
        return self

    def transform(self, X: Any) -> Any:
        """X with its missing cells replaced by conditional means, or most probable classes; rows may be new.

        A row's result depends on the row and `random_state` alone, not on the rows it comes with.
        """
        table = self._table(X, reset=False)
        x, mask = self._encode(table)
        gaps = (mask == 0).any(1)
        if bool(gaps.any()):
            settings: dict[str, Any] = {"draws": self.draws, "seed": self.seed_, "track": self.track}
            x[gaps] = impute_each(self.models_, x[gaps], mask[gaps], **settings).to(x)
        return self._out(X, table, x)

    def multiple(self, X: Any, m: int = 20, *, proper: bool = True) -> list[Any]:
        """Draw m completed copies of X from the conditional distribution of its missing cells.

        Each comes from a model of its own, refitted from a fitted member to a bootstrap sample of the fit's rows in
        half of its steps: copies differ by the parameters' uncertainty, too, so that intervals of :func:`pool` are
        wider. The refitted models are kept for further calls. Without `proper` all are drawn from
        the fitted members, which is quick, and intervals are too short.
        """
        table = self._table(X, reset=False)
        x, mask = self._encode(table)
        gaps = (mask == 0).any(1)
        copies = x.repeat(check_int("m", m), 1, 1)
        if bool(gaps.any()):
            settings: dict[str, Any] = {"draws": self.draws, "generator": self._generator(), "track": self.track}
            if proper:
                for copy, model in zip(copies, self._bootstrapped(m), strict=True):
                    copy[gaps] = impute(model, x[gaps], mask[gaps], multiple=1, **settings).draws[0].to(x)
            else:
                for i, model in enumerate(self.models_[:m]):
                    some = copies[i :: len(self.models_)]
                    some[:, gaps] = impute(model, x[gaps], mask[gaps], multiple=len(some), **settings).draws.to(x)
        return [self._out(X, table, copy) for copy in copies]

    def score(self, X: Any, y: Any = None) -> float:
        """Mean importance-weighted bound of the rows of X by the members' mixture, nats per standardised row."""
        x, mask = self._encode(self._table(X, reset=False))
        settings: dict[str, Any] = {"draws": self.draws, "generator": self._generator(), "track": self.track}
        bounds = torch.stack([impute(model, x, mask, **settings).bound for model in self.models_])
        return float(iwae_bound(bounds).mean())

    def _members(self, rows: int) -> int:
        """How many models are fitted."""
        wanted = check_int("members", self.members)
        few = self.missing_model is None and FOLD * wanted <= rows <= SMALL
        return min(wanted, self._at_once(self.codec_.families, rows)) if few else 1

    def _at_once(self, families: Sequence[Any], rows: int) -> int:
        """How many models may be fitted side by side: classes make many parameters."""
        widest = max(check_int("width", self.width), MixedLikelihood(families).n_parameters)
        return max(1, min(AT_ONCE, CELLS // (min(self.batch_size, rows) * self.k * widest)))

    def _bootstrapped(self, m: int) -> list[MIWAE]:
        """Members in turn, each refitted to a bootstrap sample, several side by side."""
        x, mask = self.rows_
        at_once = self._at_once(self.codec_.families, len(x))
        recipe = MIWAERecipe(k=self.k, steps=max(1, self.steps // 2), batch_size=self.batch_size, lr=self.lr)
        while len(self.bootstraps_) < m:
            done = len(self.bootstraps_)
            starts = [self.models_[i % len(self.models_)] for i in range(done, min(done + at_once, m))]
            # Rows that a sample leaves out cannot choose its state: the model that it starts from has seen them.
            self.bootstraps_ += refit_to_bootstraps(
                starts, x, mask, recipe, generator=stream(self.seed_, done + 1), track=self.track
            )
        return self.bootstraps_[:m]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed_)

    def _encode(self, table: pd.DataFrame) -> tuple[Tensor, Tensor]:
        values, mask = self.codec_.encode(table)
        empty = int((~mask.any(axis=1)).sum())
        if empty:
            warnings.warn(f"{empty} rows have no observed cell: they get the model's mean", MissingDataWarning, 4)
        return torch.tensor(values, dtype=torch.float32), torch.tensor(mask, dtype=torch.float32)

    def _table(self, X: Any, *, reset: bool) -> pd.DataFrame:
        if not reset:
            check_is_fitted(self)
        table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(numbers_of(X, self))
        if not table.columns.is_unique:
            twice = table.columns[table.columns.duplicated()].unique().tolist()
            raise fail("X", "unique column names", f"{twice} more than once", "rename the columns")
        validate_data(self, X if table is X else table.to_numpy(), skip_check_array=True, reset=reset)
        if table.empty:
            raise fail("X", "at least one row and one column", X.shape, "pass data")
        return table

    def _signs(self, table: pd.DataFrame) -> list[int] | None:
        if self.missing_model != "self-masking-known":
            return None
        each = self.direction if isinstance(self.direction, Mapping) else dict.fromkeys(table.columns, self.direction)
        check_columns("direction", each, table)
        named = [check_choice("direction", each.get(c, "high"), ("high", "low")) for c in table.columns]
        return [1 if d == "high" else -1 for d in named]

    def _out(self, X: Any, table: pd.DataFrame, values: Tensor) -> Any:
        done = self.codec_.decode(values.double().cpu().numpy(), table)
        return done if isinstance(X, pd.DataFrame) else done.to_numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _split(
    x: Tensor, mask: Tensor, share: float, generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Rows to train on, and those held out, or None where there are too few."""
    n = min(int(share * len(x)), MOST)
    if n < LEAST:
        return (x, mask), None
    order = permutation(len(x), generator, x.device)
    return (x[order[n:]], mask[order[n:]]), (x[order[:n]], mask[order[:n]])
