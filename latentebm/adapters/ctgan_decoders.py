"""The two table generators of the ctgan package as decoders of one normal code, which holds all their chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Conditional", "Variational"]

TAU = 0.2  # temperature at which ctgan relaxes its categories


class Conditional(nn.Module):
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
        """Rows (N, F) of codes (N, dim), as the package's transformer takes them."""
        z, rest = u[:, : self.size], u[:, self.size :]
        if self.categories:
            which = torch.searchsorted(self.ends.to(u), rest[:, 0].contiguous())
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


class Variational(nn.Module):
    """TVAE: the code, and one number for the spread of every continuous value."""

    def __init__(self, synthesizer: Any, spans: list[Any]) -> None:
        super().__init__()
        self.net, self.size = synthesizer.decoder, int(synthesizer.embedding_dim)
        starts = np.cumsum([0, *(s.dim for s in spans)])
        self.values = [int(a) for a, s in zip(starts, spans, strict=False) if s.activation_fn == "tanh"]
        self.dim = self.size + len(self.values)

    def forward(self, u: Tensor) -> Tensor:
        """Rows (N, F) of codes (N, dim), as the package's transformer takes them."""
        raw, sigma = self.net(u[:, : self.size])
        x = torch.tanh(raw)
        noise = torch.zeros_like(x)
        noise[:, self.values] = u[:, self.size :] * sigma[self.values]
        return x + noise
