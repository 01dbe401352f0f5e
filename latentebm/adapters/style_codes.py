"""A StyleGAN's images as a function of its codes, and the Gaussian of its intermediate codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["StyleCodes", "fit_gaussian"]

DRAWS, PROJECTIONS = 10_000, 64
TINY = 1e-6


class StyleCodes(nn.Module):
    """Codes to images, noise held still; with a Gaussian of w, codes are w in its own axes."""

    def __init__(self, net: Any, truncation_psi: float) -> None:
        super().__init__()
        self.net: Any = net
        self.psi = truncation_psi
        self.mean: Tensor | None
        self.root: Tensor | None
        self.register_buffer("mean", None)
        self.register_buffer("root", None)

    def mapped(self, z: Tensor) -> Tensor:
        """Intermediate codes w (N, num_ws, d) of codes z."""
        return self.net.mapping(z, None, truncation_psi=self.psi)

    def forward(self, codes: Tensor) -> Tensor:
        """Images of codes."""
        if self.mean is None or self.root is None:
            w = self.mapped(codes)
        else:
            w = (self.mean + codes @ self.root)[:, None].expand(-1, self.net.num_ws, -1)
        return self.net.synthesis(w, noise_mode="const")


@torch.no_grad()
def fit_gaussian(style: StyleCodes, z_dim: int) -> tuple[int, float]:
    """Fit the Gaussian of w; its length, and how far it lies from what the mapping gives."""
    like, g = next(style.parameters(), torch.empty(0)), torch.Generator().manual_seed(0)
    w = torch.cat([style.mapped(z)[:, 0] for z in torch.randn(DRAWS, z_dim, generator=g).to(like).split(1000)]).float()
    mean, (values, axes) = w.mean(0), torch.linalg.eigh(torch.cov(w.T).reshape(w.shape[1], -1))
    root = axes * values.clamp(min=TINY * float(values.max())).sqrt() @ axes.T
    style.mean, style.root = mean.to(like), root.to(like)
    directions = torch.randn(w.shape[1], PROJECTIONS, generator=g).to(w)
    drawn = mean + torch.randn(w.shape, generator=g).to(w) @ root
    both = [(side @ directions).sort(0).values.T.contiguous() for side in (w, drawn)]
    ranks = torch.searchsorted(both[1], both[0]) - torch.arange(DRAWS, device=w.device)
    return w.shape[1], float(ranks.abs().amax(1).float().mean() / DRAWS)
