"""A block of Langevin steps as one pure function of tensors, so that it can be compiled as it stands."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import fail
from latentebm.sampling.mcmc.step import langevin_update, log_acceptance

__all__ = [
    "BLOCK",
    "MoveBlock",
    "Potential",
    "WithoutGradient",
    "all_finite",
    "clip_gradient",
    "compiled",
    "move_block",
    "value_and_grad",
]

Potential = Callable[[Tensor], Tensor]
MoveBlock = Callable[..., Any]
Point = tuple[Tensor, Tensor, Tensor]
BLOCK = 8  # steps a block: enough to spread a compiled call's fixed cost, few enough to compile in seconds


def value_and_grad(potential: Potential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Potential (N,) and its gradient in the position (N, *event), by its own ``value_and_grad`` if it has one.

    The sum over chains, not their mean, keeps each chain's gradient its own.

    Arguments:
        potential: maps (N, *event) to (N,).
        x: positions, (N, *event).

    Raises:
        ValueError: the potential is not floating, of shape (N,) and dependent on the position.

    Example:
        >>> value_and_grad(lambda x: x.square().sum(1) / 2, torch.ones(2, 1))
        (tensor([0.5000, 0.5000]), tensor([[1.],
                [1.]]))
    """
    fused = getattr(potential, "value_and_grad", None)
    if fused is not None:
        energy, grad = fused(x)
        if energy.shape != x.shape[:1] or grad.shape != x.shape:
            got = f"{tuple(energy.shape)} and {tuple(grad.shape)}"
            expected = f"shapes ({len(x)},) and {tuple(x.shape)} of value_and_grad"
            raise fail("potential", expected, got, "return one energy and one gradient a chain")
        return energy, grad
    if torch.compiler.is_compiling():
        grad, energy = torch.func.grad(_summed(potential), has_aux=True)(x)
        return energy, grad
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        total, energy = _summed(potential)(leaf)
        if not total.requires_grad:
            raise fail("potential", "one that depends on x", "no gradient", "compute it from its argument, undetached")
        (grad,) = torch.autograd.grad(total, leaf)
    return energy.detach(), grad


class WithoutGradient:
    """A potential with zeros for its gradient, for kernels that take none: nothing is differentiated.

    Arguments:
        potential: maps (N, *event) to (N,).

    Example:
        >>> WithoutGradient(lambda x: x.sign().sum(1)).value_and_grad(torch.ones(1, 2))
        (tensor([2.]), tensor([[0., 0.]]))
    """

    def __init__(self, potential: Potential) -> None:
        self.potential = potential

    def __call__(self, x: Tensor) -> Tensor:
        """Potential (N,) of positions (N, *event)."""
        return self.potential(x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Potential (N,) and zeros shaped as the positions."""
        return _summed(self.potential)(x.detach())[1].detach(), torch.zeros_like(x)


def _summed(potential: Potential) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        energy = potential(x)
        if not isinstance(energy, Tensor) or energy.shape != x.shape[:1]:
            got = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
            raise fail("potential", f"shape ({len(x)},)", got, "return one energy a chain, for example .squeeze(-1)")
        if not energy.is_floating_point():
            raise fail("potential", "floating numbers", str(energy.dtype), "convert them with .float()")
        return energy.sum(), energy

    return total


def move_block(
    potential: Potential,
    point: Point,
    noise: Tensor,
    uniform: Tensor | None,
    scales: list[tuple[float, float]] | Tensor,
    preconditioner: Tensor | None,
    clip: float | None,
    trace: int,
) -> tuple[Point, Tensor, Tensor]:
    """Take K Langevin steps.

    Arguments:
        potential: maps (N, *event) to (N,).
        point: positions, potentials and gradients, (N, *event), (N,) and (N, *event).
        noise: standard normal draws, (K, N, *event); overwritten.
        uniform: uniform draws (K, N) of the Metropolis tests, or none for unadjusted steps.
        scales: K pairs of drift and noise scales, or a tensor (K, 2) of them.
        preconditioner: diagonal of the event, or none.
        clip: bound of each chain's gradient norm, or none.
        trace: chains, from the first, whose path is returned.

    Returns:
        The new point; sums of acceptance probabilities, clipped gradients and reverted proposals (3,); the path
        (K, trace, *event).
    """
    counts, path = noise.new_zeros(3), []
    for k, (drift, scale) in enumerate(scales):
        y = langevin_update(point[0], point[2], noise[k], drift, scale, preconditioner)
        u, g = value_and_grad(potential, y)
        keep = _keepable(u, g)
        if clip is not None:
            g, met = clip_gradient(g, clip)
            counts[1] += met
        if keep is not None:
            counts[2] += (~keep).sum()
        if uniform is not None:
            alpha = log_acceptance(point, (y, u, g), drift, scale, preconditioner).clamp(max=0).exp()
            if keep is not None:
                alpha = torch.where(keep, torch.where(torch.isneginf(u), 1.0, alpha), 0.0)
            counts[0] += alpha.sum()
            keep = uniform[k] < alpha
        point = (y, u, g) if keep is None else _choose(keep, (y, u, g), point)
        if trace:
            path.append(point[0][:trace])
    return point, counts, torch.stack(path) if trace else noise.new_empty(0)


def all_finite(energy: Tensor, grad: Tensor) -> Tensor:
    """Mask (N,) of chains whose energy and gradient are finite.

    Example:
        >>> all_finite(torch.tensor([0.0, torch.nan]), torch.zeros(2, 1))
        tensor([ True, False])
    """
    return torch.isfinite(energy) & torch.isfinite(grad).flatten(1).all(1)


def _keepable(energy: Tensor, grad: Tensor) -> Tensor | None:
    """Mask (N,) of finite proposals, or none if all surely are; −∞ passes, to be found and raised by the caller."""
    if not torch.compiler.is_compiling() and math.isfinite((energy.sum() + grad.sum()).item()):
        return None  # one cheap sum settles the usual case
    return all_finite(energy, grad) | torch.isneginf(energy)


def _choose(keep: Tensor, new: Point, old: Point) -> Point:
    wide = keep.view(-1, *[1] * (new[0].ndim - 1))
    return torch.where(wide, new[0], old[0]), torch.where(keep, new[1], old[1]), torch.where(wide, new[2], old[2])


def clip_gradient(grad: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Scale each chain's gradient (N, *event) down to a norm of at most `bound`, and count those that were larger.

    Example:
        >>> clip_gradient(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), 1.0)
        (tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]]), tensor(1))
    """
    norm = grad.flatten(1).norm(dim=1)
    factor = (bound / norm.clamp(min=bound)).view(-1, *[1] * (grad.ndim - 1))
    return grad * factor, (norm > bound).sum()


def compiled(potential: Potential) -> tuple[Potential, MoveBlock]:
    """A faster potential and what moves its chains: its own program if it has one, else `move_block` compiled.

    A potential brings its program by a method ``compiled``, which may give none. Where there is no C++ compiler a
    warning is given, and the plain steps remain.

    Arguments:
        potential: maps (N, *event) to (N,).

    Example:
        >>> potential, move = compiled(torch.sum)
        >>> potential is torch.sum, callable(move)
        (True, True)
    """
    build = getattr(potential, "compiled", None)
    program = build() if build else None
    if program is not None:
        return program, move_block
    reason = _why_not()
    if reason:
        warnings.warn(f"compile: {reason}; the plain steps run instead", RuntimeWarning, stacklevel=3)
        return potential, move_block
    return potential, _call_compiled


def _call_compiled(
    potential: Potential,
    point: Point,
    noise: Tensor,
    uniform: Tensor | None,
    scales: list[tuple[float, float]],
    *rest: Any,
) -> tuple[Point, Tensor, Tensor]:
    # Scales go in as a tensor: as numbers, each new one would be compiled into a program of its own.
    table = torch.tensor(scales, dtype=noise.dtype, device=noise.device)
    return _compiled()(potential, point, noise, uniform, table, *rest)


@functools.cache
def _compiled() -> MoveBlock:
    # The C library gives freed memory back at once, and takes it anew page by page at every step, until a large block
    # has been freed: after this one it keeps up to 64 MB at hand.
    torch.empty(8_000_000 - 4_096)
    # With the calls between the kernels compiled too, few chains are not held up by the interpreter.
    return torch.compile(move_block, dynamic=False, options={"cpp_wrapper": True})


@functools.cache
def _why_not() -> str:
    """Why nothing can be compiled here, or an empty string."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        return str(error).strip().splitlines()[0]
    return ""
