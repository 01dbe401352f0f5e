"""What every sampler takes and gives: a tilted target, and draws with their diagnostics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.progress import Track, silent

__all__ = ["Draws", "Sampler", "Target", "check_gradient", "gather_draws", "tilt_energy"]

DECODED_AT_ONCE = 16_384
PROBED = 256  # points that tell whether an energy has a gradient


@runtime_checkable
class Target(Protocol):
    r"""A base law times a tilt, :math:`p_E(u) \propto e^{-E(u)} p_0(u)`, all that a sampler may know of a model."""

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, D) points of the base law."""
        ...

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the base law, in nats."""
        ...

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,), in nats; low energy is high probability."""
        ...

    def potential(self, u: Tensor) -> Tensor:
        """Total potential (N,): energy minus log_base."""
        ...

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        ...


@dataclass
class Draws:
    r"""Equally weighted draws of a tilted model.

    Attributes:
        x: decoded data, (n, *data_shape).
        latent: base-space points, (n, D).
        log_weight: log-weight :math:`-E(u)` of each draw against the base law, (n,), nats.
        diagnostics: plain numbers about how the draws were made (``ess``, ``pareto_k``, ``log_z``, …).
        trace: paths of some chains in base space, (steps, chains, D), where the sampler keeps any.

    Example:
        >>> draws = Draws(torch.zeros(2, 1), torch.zeros(2, 3), torch.zeros(2))
        >>> len(draws)
        2
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

        Raises:
            ImportError: arviz-base is not installed.

        Example:
            >>> tree = Draws(torch.zeros(5, 1), torch.zeros(5, 3), torch.zeros(5)).to_arviz()
            >>> dict(tree.posterior.sizes)
            {'chain': 1, 'draw': 5, 'u_dim_0': 3}
        """
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise ImportError("arviz-base: expected for Draws.to_arviz, not found; pip install arviz-base") from error
        whole = self.trace is None or not len(self.trace)
        chains = self.latent[None] if whole or self.trace is None else self.trace.transpose(0, 1)
        numbers = {k: v for k, v in self.diagnostics.items() if isinstance(v, int | float | str)}
        tree = from_dict({"posterior": {"u": chains.detach().cpu().numpy()}})
        tree.attrs.update(numbers)
        return tree


def tilt_energy(tilt: Target, u: Tensor) -> Tensor:
    """Tilt energies (N,) of base points (N, D): the one place where samplers ask for them.

    Arguments:
        tilt: the target.
        u: base points, (N, D).

    Raises:
        ValueError: the points are not floating, or the energies are not one floating number a point.
    """
    if not u.is_floating_point():
        raise fail("sample_base", "floating points", str(u.dtype), "convert them with .float()")
    energy = tilt.energy(u)
    if not isinstance(energy, Tensor) or energy.shape != u.shape[:1]:
        got = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
        raise fail("energy", f"shape ({len(u)},)", got, "return one energy a point, for example .squeeze(-1)")
    if not energy.is_floating_point():
        raise fail("energy", "floating numbers", str(energy.dtype), "convert them with .float()")
    return energy


def check_gradient(tilt: Target, u: Tensor) -> None:
    """Refuse an energy that differs between base points (N, D) but has no gradient at any.

    An unadjusted chain sees an energy by its gradient alone: over a hard label it would draw from the base law.

    Arguments:
        tilt: the target.
        u: base points, of which the first 256 are looked at.

    Raises:
        ValueError: the energies differ and have no gradient.
    """
    if getattr(tilt.potential, "value_and_grad", None) is not None:
        return
    u = u[:PROBED].detach().requires_grad_()
    with torch.enable_grad():
        energy = tilt_energy(tilt, u)
        grad = torch.autograd.grad(energy.sum(), u, allow_unused=True)[0] if energy.requires_grad else None
    if (grad is None or not bool(grad.any())) and bool((energy != energy[0]).any()):
        fix = "draw by SNIS, or by Langevin with MALA or RandomWalk"
        raise fail("energy", "one with a gradient for an unadjusted kernel", "one of steps", fix)


def gather_draws(tilt: Target, latent: Tensor, log_weight: Tensor, diagnostics: dict[str, Any]) -> Draws:
    """Decode base points, in chunks that bound the decoder's memory, and pack the draws.

    Arguments:
        tilt: decodes the points.
        latent: base points, (n, D).
        log_weight: log-weights, (n,).
        diagnostics: plain numbers about the draws.
    """
    with torch.no_grad():
        x = torch.cat([tilt.decode(u) for u in latent.split(DECODED_AT_ONCE)])
    return Draws(x, latent, log_weight, diagnostics)


class Sampler(Protocol):
    """Anything that draws from a tilted target."""

    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of the tilted law."""
        ...
