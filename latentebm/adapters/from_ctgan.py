"""Generators of tables by the ctgan and sdv packages: all their randomness in one normal code, tables out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.checks import check_int, fail
from latentebm.rng import normal

__all__ = ["TableModel", "from_ctgan", "from_sdv"]

TAU = 0.2  # temperature at which ctgan relaxes its categories
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


class _Conditional(nn.Module):
    """CTGAN: the code, one number for the condition, and one for the Gumbel noise of every category."""

    ends: Tensor

    def __init__(self, synthesizer: Any, spans: list[Any]) -> None:
        super().__init__()
        self.net, self.size, self.spans = synthesizer._generator, int(synthesizer._embedding_dim), spans
        sampler = synthesizer._data_sampler
        share = np.asarray(sampler._discrete_column_category_prob, dtype=np.float64).flatten()
        share = share[share != 0]  # as ctgan's own sampler reads them
        self.categories = int(sampler._n_categories) if sampler._n_discrete_columns else 0
        ends = np.cumsum(share / share.sum())[:-1] if self.categories else np.zeros(0)
        self.register_buffer("ends", torch.special.ndtri(torch.from_numpy(np.clip(ends, 0, 1))).float())
        self.dim = self.size + bool(self.categories) + sum(s.dim for s in spans if s.activation_fn == "softmax")

    def forward(self, u: Tensor) -> Tensor:
        z, rest = u[:, : self.size], u[:, self.size :]
        if self.categories:
            which = torch.searchsorted(self.ends, rest[:, 0].contiguous())
            z, rest = torch.cat([z, nn.functional.one_hot(which, self.categories).to(z)], 1), rest[:, 1:]
        out, at = [], 0
        raw = self.net(z)
        for span in self.spans:
            part, at = raw[:, at : at + span.dim], at + span.dim
            if span.activation_fn == "softmax":
                uniform = torch.special.ndtr(rest[:, : span.dim]).clamp(1e-6, 1 - 1e-6)
                part, rest = ((part - (-uniform.log()).log()) / TAU).softmax(1), rest[:, span.dim :]
            else:
                part = torch.tanh(part)
            out.append(part)
        return torch.cat(out, 1)


class _Variational(nn.Module):
    """TVAE: the code, and one number for the spread of every continuous value."""

    def __init__(self, synthesizer: Any, spans: list[Any]) -> None:
        super().__init__()
        self.net, self.size = synthesizer.decoder, int(synthesizer.embedding_dim)
        starts = np.cumsum([0, *(s.dim for s in spans)])
        self.values = [int(a) for a, s in zip(starts, spans, strict=False) if s.activation_fn == "tanh"]
        self.dim = self.size + len(self.values)

    def forward(self, u: Tensor) -> Tensor:
        raw, sigma = self.net(u[:, : self.size])
        x = torch.tanh(raw)
        noise = torch.zeros_like(x)
        noise[:, self.values] = u[:, self.size :] * sigma[self.values]
        return x + noise


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
    """
    if hasattr(synthesizer, "_generator") and hasattr(synthesizer, "_data_sampler"):
        kind: Any = _Conditional
        transformer = synthesizer._transformer
    elif hasattr(synthesizer, "decoder") and hasattr(synthesizer, "transformer"):
        kind, transformer = _Variational, synthesizer.transformer
    else:
        raise fail("synthesizer", "a fitted CTGAN or TVAE", type(synthesizer).__name__, "call its fit first")
    spans = [span for column in transformer.output_info_list for span in column]
    decoder = kind(synthesizer, spans).eval().requires_grad_(False)
    model = TableModel(decoder, decoder.dim)
    model.transformer = transformer
    return model


def from_sdv(synthesizer: Any) -> TableModel:
    """A fitted ``CTGANSynthesizer`` or ``TVAESynthesizer`` of sdv; `frame` undoes sdv's own preprocessing as well.

    Raises:
        ValueError: an object that has not been fitted, or another one.
    """
    inner = getattr(synthesizer, "_model", None)
    if inner is None or not hasattr(synthesizer, "_data_processor"):
        raise fail("synthesizer", "a fitted synthesizer of sdv", type(synthesizer).__name__, "call its fit first")
    model = from_ctgan(inner)
    model.transformer = _Both(model.transformer, synthesizer._data_processor)
    return model


class _Both:
    """The transformer of ctgan, then sdv's."""

    def __init__(self, inner: Any, processor: Any) -> None:
        self.inner, self.processor = inner, processor

    def inverse_transform(self, rows: Any) -> Any:
        return self.processor.reverse_transform(self.inner.inverse_transform(rows))
