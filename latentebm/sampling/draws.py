"""What every sampler gives: draws with their diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from latentebm.chunks import CHAIN_NUMBERS, chunk_size, decode_chunk, in_chunks
from latentebm.devices import within_memory
from latentebm.disk.walk import walked
from latentebm.progress import Track, silent
from latentebm.sampling.target import Target, tilt_energy

__all__ = ["Draws", "Sampler", "Undecoded", "base_chunks", "gather_draws"]


@dataclass
class Draws:
    r"""Equally weighted draws of a tilted model.

    Attributes:
        x: decoded data, (n, *data_shape).
        latent: base-space points, (n, D).
        log_weight: log-weight :math:`-E(u)` of each draw against the base distribution, (n,), nats.
        diagnostics: plain numbers about how the draws were made (``ess``, ``pareto_k``, ``log_z``, …).
        trace: paths of some chains in base space, (steps, chains, D), where the sampler keeps any.
    """

    x: Tensor
    latent: Tensor
    log_weight: Tensor
    diagnostics: dict[str, Any] = field(default_factory=dict)
    trace: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latent)

    def to_arviz(self) -> Any:
        """Convert to an ArviZ DataTree: the paths of `trace` as chains, or else the draws as one chain.

        Example:
            >>> tree = Draws(torch.zeros(5, 1), torch.zeros(5, 3), torch.zeros(5)).to_arviz()
            >>> dict(tree.posterior.sizes)
            {'chain': 1, 'draw': 5, 'u_dim_0': 3}
        """
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise ImportError("arviz-base: expected for Draws.to_arviz, not found; pip install arviz-base") from error
        chains = self.latent[None] if self.trace is None or not len(self.trace) else self.trace.transpose(0, 1)
        tree = from_dict({"posterior": {"u": chains.detach().cpu().numpy()}})
        tree.attrs.update({k: v for k, v in self.diagnostics.items() if isinstance(v, int | float | str)})
        return tree


@torch.no_grad()
def gather_draws(
    tilt: Target,
    latent: Tensor,
    diagnostics: dict[str, Any],
    *,
    log_weight: Tensor | None = None,
    trace: Tensor | None = None,
) -> Draws:
    """Decode base points (n, D) chunk by chunk and pack the draws; without log-weights the tilt is asked for them."""
    if log_weight is None:
        log_weight = -in_chunks(lambda u: tilt_energy(tilt, u), latent, chunk_size(CHAIN_NUMBERS, latent.device))
    few = decode_chunk(getattr(tilt, "model", None), latent.device)  # of large data
    size = (
        few if few < chunk_size(CHAIN_NUMBERS, latent.device) else chunk_size(max(1, latent[:1].numel()), latent.device)
    )
    x = walked(tilt.decode, latent.split(size), "decoding", lambda: [latent, tilt.decode(latent[:1])])
    return Draws(torch.cat(x), latent, log_weight, diagnostics, trace)


def base_chunks(
    tilt: Target, total: int, chunk: int, *, generator: torch.Generator, first: int = 0, track: Track = silent
) -> Iterator[tuple[Tensor, Tensor]]:
    """`total` base points (n, D), chunk by chunk from the `first`, with their log-weights (n,)."""
    for start in track(range(first * chunk, total, chunk), "pool"):
        n = min(chunk, total - start)
        with within_memory(chunk=n):
            u = tilt.sample_base(n, generator=generator)
            log_weight = -tilt_energy(tilt, u)
        yield u, log_weight


class Undecoded(Target):
    """A target whose points are drawn and not decoded, under its own energy or another of base points (N, D).

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.tilts import LatentTilt
        >>> tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))
        >>> Undecoded(tilt).decode(torch.zeros(5, 1)).shape
        torch.Size([5, 0])
    """

    def __init__(self, tilt: Target, energy: Callable[[Tensor], Tensor] | None = None) -> None:
        self.tilt, self.own = tilt, energy
        self.parameters = getattr(tilt, "parameters", lambda: iter(()))

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Points (n, D) of the target's base distribution."""
        return self.tilt.sample_base(n, generator=generator)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base distribution."""
        return self.tilt.log_base(u)

    def energy(self, u: Tensor) -> Tensor:
        """Energies (N,)."""
        return self.tilt.energy(u) if self.own is None else self.own(u)

    def decode(self, u: Tensor) -> Tensor:
        """Nothing, (N, 0)."""
        return u.new_empty((len(u), 0))


class Sampler(Protocol):
    """Anything that draws from a tilted target."""

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted distribution."""
        ...
