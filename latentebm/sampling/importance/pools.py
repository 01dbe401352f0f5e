"""One pool of base draws, drawn in parts: each part's draws and sums of weights, merged into those of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from latentebm.progress import Track, silent
from latentebm.rng import child, on_device
from latentebm.sampling.draws import base_chunks
from latentebm.sampling.importance.resampling import make_resampler
from latentebm.sampling.importance.weights import WeightSums, base_chunk
from latentebm.sampling.target import Target, target_device

__all__ = ["PoolPart", "owners", "pool_part"]


@dataclass
class PoolPart:
    """n draws from a part of a pool, each independent and in proportion to the weights of that part.

    Attributes:
        latent: base points, (n, D).
        log_weight: of each, (n,).
        index: their places in the whole pool, (n,).
        sums: of the part's weights, ready to be merged into those of the whole.
    """

    latent: Tensor
    log_weight: Tensor
    index: Tensor
    sums: WeightSums

    def rows(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points, log-weights and pool places of some of the n draws."""
        return tuple(t[places.to(t.device)] for t in (self.latent, self.log_weight, self.index))  # type: ignore[return-value]


@torch.no_grad()
def pool_part(
    tilt: Target,
    n: int,
    rows: range,
    *,
    pool: int,
    chunk: Any,
    generator: torch.Generator,
    track: Track = silent,
) -> PoolPart:
    """Draw `n` points from the rows of a pool that fall to one part, by weighted reservoirs, in one pass.

    Raises:
        ValueError: an energy is NaN or −∞.
    """
    device = target_device(tilt) or generator.device
    choices, generator = child(generator), on_device(generator, device)
    sums, resampler = WeightSums(pool), make_resampler("multinomial", n, choices)
    part = PoolPart(torch.empty(0), torch.empty(0), torch.full((n,), -1), sums)
    chunks: Callable[..., Any] = partial(base_chunks, generator=generator, track=track)
    for i, (u, log_weight) in enumerate(chunks(tilt, len(rows), base_chunk(chunk, device))):
        if i == 0:
            part.latent, part.log_weight = u.new_zeros((n, *u.shape[1:])), log_weight.new_zeros(n)
        draws, taken = (t.to(u.device) for t in resampler.update(sums.add(log_weight).to(choices.device)))
        part.latent[draws], part.log_weight[draws] = u[taken], log_weight[taken]
    part.index = resampler.index.cpu() + rows.start
    return part


def owners(log_sums: Sequence[float], n: int, generator: torch.Generator) -> Tensor:
    r"""The part (n,) that each of n draws of the whole pool comes from, :math:`P(r) = S_r / \sum_s S_s`.

    A draw of part r, taken with this probability, is a draw of the whole pool in proportion to its weight: the merge is
    exact in distribution. Parts of zero weight are never taken.

    Example:
        >>> owners([0.0, -torch.inf, 0.0], 1000, torch.Generator().manual_seed(0)).bincount(minlength=3)
        tensor([500,   0, 500])
    """
    weight = (torch.tensor(log_sums, dtype=torch.float64) - max(log_sums)).exp()
    return torch.multinomial(weight, n, replacement=True, generator=generator)
