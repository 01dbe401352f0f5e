"""The estimator for tables: fit a generator of rows, tilt it to targets or a reference, draw tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator

from latentebm.checks import check_int, check_number, fail
from latentebm.progress import Track, bars, silent
from latentebm.rng import stream
from latentebm.tables.fit_row_model import fit_row_model
from latentebm.tables.row_model import RowModel
from latentebm.tables.row_source import Modelled, RowSource, Sampled
from latentebm.tables.row_tilt import RowTilt, fit_reference, fit_targets, weighed
from latentebm.tables.table_code import TableCode, check_table
from latentebm.tables.table_files import load_table_model, save_table_model
from latentebm.tables.targets import Target, as_targets, check_columns_known
from latentebm.tables.weighted_rows import draw_rows
from latentebm.training.logs import Log, logged

__all__ = ["TableDebiaser"]


class TableDebiaser(BaseEstimator):
    r"""Learns a generator of rows, freezes it, and weights its rows to targets or to a reference table.

    .. math:: p_E(x) \propto e^{\theta^\top f(x)}\, p(x), \qquad E_{p_E}[f] = t

    Among all distributions that meet the targets this is the nearest to the generator's in KL. Tables go in and come
    out as pandas DataFrames of the same columns, dtypes, categories, whole numbers and ranges, missing cells included.

    Arguments:
        target: what the shares shall be: `Share`, `Parity`, `Mean`, several in a list, or a mapping of a column to the
            shares of its values. None with a reference table tilts to the whole of the reference's distribution.
        model: a fitted generator with ``sample(n) -> DataFrame`` to tilt as it is; None fits a `RowModel`.
        width: hidden units of each column's perceptron.
        steps: training steps of 256 rows; None for six passes over the rows, at least 100 steps and at most 1000.
        lr: peak learning rate.
        pool: rows of the generator that the tilt is fitted on.
        seed: random seed of the whole fit.
        verbose: show progress bars.

    Attributes:
        code_: how the columns became codes.
        model_: the generator, never changed by the tilt.
        tilt_: the fitted `RowTilt`.
        heldout_gain_: of a tilt to a reference table, nats per row, else None.
        heldout_nats_: mean negative log-likelihood of a held-out row under the `RowModel`, else None.

    Raises:
        ValueError: in `fit`, where a setting, a table or a target is not as described, or a target is out of reach.

    References:
        I-divergence geometry of probability distributions and minimization problems (Csiszár, 1975)

    Example:
        >>> from latentebm.tables.census import synthetic_census
        >>> from latentebm.tables.parity import Parity
        >>> table = synthetic_census(600, seed=0)
        >>> model = TableDebiaser(target=Parity("income", by="sex"), steps=60, pool=20_000).fit(table)
        >>> draws = model.sample(1000)
        >>> bool((draws.dtypes == table.dtypes).all()), draws.attrs["ess"] > 0.5
        (True, True)
        >>> model.sample(5, where={"sex": "F", "income": "high"})[["sex", "income"]].drop_duplicates().values.tolist()
        [['F', 'high']]
    """

    def __init__(
        self,
        target: Target | Mapping[Any, Any] | list[Any] | None = None,
        *,
        model: Any = None,
        width: int = 64,
        steps: int | None = None,
        lr: float = 5e-3,
        pool: int = 100_000,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.target, self.model, self.width, self.steps = target, model, width, steps
        self.lr, self.pool, self.seed, self.verbose = lr, pool, seed, verbose

    def fit(
        self, biased: pd.DataFrame, reference: pd.DataFrame | None = None, *, log: Log | None = None
    ) -> TableDebiaser:
        """Fit the generator to a biased table, then the tilt to the targets or the reference table.

        As training goes, `log` is called with a step and numbers by name; see `latentebm.training.logs.logged`.

        Raises:
            ValueError: a setting, a table or a target is not as described.
        """
        targets = self._checked(biased, reference)
        with logged(log):
            self.fit_model(biased)
            return self._tilt(targets, reference)

    def fit_model(self, biased: pd.DataFrame) -> TableDebiaser:
        """Fit the generator alone; with ``model=`` only the columns' codes are learned.

        Raises:
            ValueError: a setting or the table is not as described.
        """
        targets = self._checked(biased, None, alone=True)
        self.code_ = TableCode.learn(biased)
        self.heldout_nats_: float | None = None
        self.model_ = self._fit_rows(biased, targets)
        self.tilt_ = RowTilt([], np.zeros(0))
        self.heldout_gain_: float | None = None
        return self

    def fit_tilt(self, reference: pd.DataFrame | None = None) -> TableDebiaser:
        """Fit the tilt alone, the generator as it is; `set_params` changes the target.

        Raises:
            ValueError: no generator yet, or a target or the reference is not as described.
        """
        self._ready()
        return self._tilt(self._checked(pd.DataFrame(columns=self.code_.names), reference, alone=True), reference)

    def sample(self, n: int, where: Mapping[Any, Any] | None = None, *, seed: int | None = None) -> pd.DataFrame:
        """Draw `n` rows of the tilt.

        Arguments:
            n: rows.
            where: column to value, ``pd.Interval``, list of values or None for missing: the tilt's distribution
                conditioned on it. The package's own model draws only such rows; a model with ``sample`` draws up to
                262,144 rows until some are met.
            seed: of the draws; None takes the estimator's own.

        Returns:
            A DataFrame like the fitted one. Its ``attrs`` hold ``ess`` (share of the generated rows), ``pareto_k``,
            ``generated`` (rows) and ``repeated`` (share of the rows that repeat another).

        Raises:
            ValueError: not fitted yet, or a condition on no column or value of the table.
        """
        self._ready()
        check_int("n", n)
        unknown = [c for c in where or {} if c not in self.code_.names]
        if unknown:
            raise fail("where", "columns of the table", unknown, f"pass some of {self.code_.names[:10]}")
        table, report = draw_rows(self.source_, self.tilt_, n, self._stream(4, seed), where)
        table.attrs.update(report)
        return table

    def sample_prior(self, n: int, *, seed: int | None = None) -> pd.DataFrame:
        """Draw `n` rows of the generator as it is, untilted.

        Raises:
            ValueError: not fitted yet.
        """
        self._ready()
        drawn = self.source_.draw(check_int("n", n), self._stream(5, seed))
        return drawn.table(torch.arange(n))

    def weigh(self, pool: int | None = None) -> dict[str, float | int | bool]:
        """Health of the weights on fresh rows: ESS (share), Pareto-k̂, log Z ± se and KL from the untilted (nats).

        Raises:
            ValueError: not fitted yet.
        """
        self._ready()
        drawn = self.source_.draw(pool or self.pool, stream(self.seed, 6), names=self.tilt_.reads)
        return weighed(self.tilt_.log_weight(drawn))

    def save(self, folder: Path | str) -> Path:
        """Write the model's and the tilt's weights and ``config.json`` into a folder, each file whole or not at all.

        Raises:
            ValueError: not fitted yet, or a generator that is not the package's own.
        """
        self._ready()
        return save_table_model(self, folder)

    @classmethod
    def load(cls, folder: Path | str) -> TableDebiaser:
        """Read what `save` wrote, after checking every weight file's SHA-256; `target` is then None, the tilt kept.

        Raises:
            FileNotFoundError: the folder lacks ``config.json`` or a weight file.
            ValueError: a weight file is not the one that was written.
        """
        return load_table_model(cls, folder)

    @property
    def source_(self) -> RowSource:
        """The generator's rows."""
        kind: Any = Modelled if isinstance(self.model_, RowModel) else Sampled
        source: RowSource = kind(self.code_, self.model_)
        return source

    def _checked(
        self, biased: pd.DataFrame, reference: pd.DataFrame | None, *, alone: bool = False
    ) -> list[Target]:  # fmt: skip
        """The targets, once every setting and table is found to be as described."""
        for name in ("width", "pool"):
            check_int(name, getattr(self, name))
        if self.steps is not None:
            check_int("steps", self.steps, fix="pass a number of training steps, or None")
        check_number("lr", self.lr, low=0, open_low=True)
        if self.model is not None and not callable(getattr(self.model, "sample", None)):
            got = type(self.model).__name__
            raise fail("model", "a generator with sample(n), or None", got, "wrap it, or leave it out")
        targets = as_targets(self.target)
        if not isinstance(biased, pd.DataFrame) or len(biased):
            check_table("biased", biased)
        check_columns_known(targets, biased)
        if reference is not None:
            check_table("reference", reference, fewest=2)
            check_columns_known(targets, reference)
        elif not alone and (not targets or any(t.open for t in targets)):
            needed = "a reference table where no target gives the shares"
            raise fail("reference", needed, "None", "pass one, or a target with its shares")
        return targets

    def _fit_rows(self, biased: pd.DataFrame, targets: list[Target]) -> Any:
        if self.model is not None:
            return self.model
        # Columns that targets speak of come first: rows that meet a condition on them are then drawn with even weights.
        names = dict.fromkeys([*(c for t in targets for c in t.columns()), *self.code_.names])
        settings: dict[str, Any] = {name: getattr(self, name) for name in ("width", "steps", "lr")}
        model, self.heldout_nats_ = fit_row_model(
            self.code_.sizes, self.code_.encode(biased), [self.code_.names.index(c) for c in names],
            generator=stream(self.seed, 1), track=self._track(), **settings,
        )  # fmt: skip
        return model

    def _tilt(self, targets: list[Target], reference: pd.DataFrame | None) -> TableDebiaser:
        self.heldout_gain_ = None
        rng: dict[str, Any] = {"pool": self.pool, "generator": stream(self.seed, 2)}
        if targets:
            self.tilt_ = fit_targets(self.source_, targets, reference, **rng)
        elif reference is not None:
            fitted = fit_reference(self.source_, reference, track=self._track(), **rng)
            self.tilt_, self.heldout_gain_ = fitted
        return self

    def _stream(self, stage: int, seed: int | None) -> torch.Generator:
        return stream(self.seed if seed is None else seed, stage)

    def _track(self) -> Track:
        return bars if self.verbose else silent

    def _ready(self) -> None:
        if not hasattr(self, "tilt_"):
            raise fail("TableDebiaser", "a fitted model", "one that is not fitted", "call fit(biased) first")
