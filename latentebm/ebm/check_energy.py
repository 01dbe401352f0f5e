"""Checks of an energy that is to be fitted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentebm.checks import check_points, fail

__all__ = ["check_depends", "check_energy"]


def check_energy(energy: nn.Module, data: Tensor, *, flat: bool = False) -> None:
    """Refuse data that are not finite (N, *event), or (N, d) with `flat`, and energies not of one number per point."""
    if flat and (data.ndim != 2 or not len(data)):
        raise fail("data", "shape (N, d)", tuple(data.shape), "flatten each point")
    value = check_depends(energy, x := check_points("data", data)[:256])
    if value.shape != x.shape[:1]:
        raise fail("energy", "shape (N,)", tuple(value.shape), "return one energy per point, for example .squeeze(-1)")


def check_depends(network: nn.Module, x: Tensor) -> Tensor:
    """Return a network's energies (N,) or logits (N, C) of points (N, *event), if they depend on the points.

    No method could fit one whose score is zero whatever is learned.
    """
    leaf = x.detach().clone().requires_grad_()
    value: Tensor = network(leaf)
    # Of logits, some combination.
    flat = value if value.ndim < 2 else value.flatten(1) @ torch.linspace(1, 2, value[0].numel()).to(value)
    if not _depends(flat, leaf, [p for p in network.parameters() if p.requires_grad]):
        raise fail("energy", "one that depends on x", "a zero score at every point", "use its argument in forward")
    return value.detach()


def _depends(value: Tensor, leaf: Tensor, parameters: list[nn.Parameter]) -> bool:
    if not value.requires_grad:
        return False
    (score,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True, retain_graph=True)
    if score is None or bool(score.any()):
        return score is not None
    # The score may vanish at the start alone, as where a last layer starts at zero: can parameters change it?
    # Signs in pairs cancel exactly what all points share.
    even = len(value) // 2 * 2
    contrast = value[:even:2].sum() - value[1:even:2].sum()
    slopes = torch.autograd.grad(contrast, parameters, allow_unused=True) if parameters and even else ()
    return any(slope is not None and bool(slope.abs().max() > 1e-6) for slope in slopes)
