"""Generators of tables by the ctgan package: all their randomness in one normal code, tables out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentebm.adapters.ctgan_decoders import Conditional, Variational
from latentebm.adapters.from_module import WrappedModel
from latentebm.checks import check_int, fail
from latentebm.rng import normal

__all__ = ["TableModel", "from_ctgan"]

DRAWN = 10_000  # rows decoded at once


class TableModel(WrappedModel):
    """A table generator as a function of its code; `frame` turns its rows into the table, and `sample` draws one.

    It is what ``TableDebiaser(target, model=...)`` tilts.
    """

    transformer: Any

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Any:
        """A table of n rows, a DataFrame; without a generator it comes from torch's global stream, as the packages'."""
        shape, like = (check_int("n", n), self.latent_dim), next(self.parameters(), torch.empty(0))
        u = normal(shape, generator or torch.default_generator, like)
        return self.frame(torch.cat([self.decode(part) for part in u.split(DRAWN)]))

    def frame(self, x: Tensor) -> Any:
        """The table, a DataFrame with the columns of the training data, of rows (N, F)."""
        return self.transformer.inverse_transform(x.detach().cpu().numpy().astype(np.float32))


def from_ctgan(synthesizer: Any) -> TableModel:
    r"""A fitted CTGAN or TVAE of the ctgan package, as a function of a standard normal code.

    .. math:: x = \mathrm{decode}(u), \quad u \sim N(0, I), \quad
        \text{category} = \arg\max_k\, \ell_k - \log(-\log\Phi(u_k))

    What the packages draw beside their code (conditions, Gumbel noise, the spread of values) is a part of it here, so
    that seeded draws have the package's own distribution and can be tilted. `TableModel.frame` gives DataFrames, and
    ``TableDebiaser(target, model=from_ctgan(synthesizer))`` tilts them to shares of their columns.

    Raises:
        ValueError: an object that has not been fitted, or another one.

    References:
        Modeling Tabular data using Conditional GAN (Xu et al., 2019), https://arxiv.org/abs/1907.00503

    Example:
        >>> import pandas as pd
        >>> from ctgan import TVAE
        >>> table = pd.DataFrame({"age": [20.0, 30.0, 60.0, 70.0] * 25, "job": ["a", "b"] * 50})
        >>> tvae = TVAE(epochs=1, embedding_dim=4, compress_dims=(8,), decompress_dims=(8,), enable_gpu=False)
        >>> tvae.fit(table, ["job"])
        >>> model = from_ctgan(tvae)
        >>> list(model.frame(model.decode(torch.randn(3, model.latent_dim))).columns)
        ['age', 'job']
    """
    if hasattr(synthesizer, "_generator") and hasattr(synthesizer, "_data_sampler"):
        kind: Any = Conditional
        transformer = synthesizer._transformer
    elif hasattr(synthesizer, "decoder") and hasattr(synthesizer, "transformer"):
        kind, transformer = Variational, synthesizer.transformer
    else:
        raise fail("synthesizer", "a fitted CTGAN or TVAE", type(synthesizer).__name__, "call its fit first")
    spans = [span for column in transformer.output_info_list for span in column]
    decoder = kind(synthesizer, spans).eval().requires_grad_(False)
    model = TableModel(decoder, decoder.dim)
    model.transformer = transformer
    return model
