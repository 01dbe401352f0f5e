"""The one Langevin update, and blocks of such steps as one pure function of tensors, to be compiled as it stands."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from latentebm.sampling.compiled.captured import Captured
from latentebm.sampling.compiled.gpu_chains import GPUPerceptrons, gpu_form
from latentebm.sampling.compiled.perceptrons import compiled_form
from latentebm.sampling.compiled.rounding import AGREEMENT, rounded_form
from latentebm.sampling.target import Potential, agrees, value_and_grad

__all__ = ["BLOCK", "Fastest", "MoveBlock", "Point", "all_finite", "clip_gradient", "fastest", "langevin_update"]
__all__ += ["langevin_update_foreach", "log_acceptance", "move_block", "why_not_compiled"]

MoveBlock = Callable[..., Any]
GPU_BLOCK = 64  # steps of a program that leaves the GPU's multiprocessors only at the end
Point = tuple[Tensor, Tensor, Tensor]  # positions (N, *event), energies (N,), gradients (N, *event)
BLOCK = 8  # steps per block: enough to spread a compiled call's fixed cost, few enough to compile in seconds


def langevin_update(
    x: Tensor,
    grad: Tensor,
    noise: Tensor,
    drift: float | Tensor,
    scale: float | Tensor,
    preconditioner: Tensor | None = None,
) -> Tensor:
    r"""Make the one Langevin update of positions (N, *event) or a parameter, in place in `noise` unless it is compiled.

    .. math:: x' = x - d P \nabla U(x) + s P^{1/2} \xi

    Drift :math:`d` and noise scale :math:`s` are numbers or scalar tensors; the diagonal :math:`P` broadcasts to `x`.

    Example:
        >>> langevin_update(torch.ones(1), torch.ones(1), torch.zeros(1), 0.25, 1.0)
        tensor([0.7500])
    """
    if preconditioner is not None:
        drift, scale = preconditioner * drift, preconditioner.sqrt() * scale
    if torch.compiler.is_compiling():
        return noise * scale + x - grad * drift  # in place, a compiler would copy the noise of all steps at every step
    return noise.mul_(scale).add_(x).sub_(grad * drift)


def langevin_update_foreach(
    xs: list[Tensor], grads: list[Tensor], noise: list[Tensor], drift: float, scale: float
) -> None:
    """Make the same update of parameters, in place in `xs`, by fused operations; the noise is overwritten."""
    torch._foreach_mul_(noise, scale)
    torch._foreach_add_(noise, grads, alpha=-drift)
    torch._foreach_add_(xs, noise)


def log_acceptance(
    old: tuple[Tensor, Tensor, Tensor],
    new: tuple[Tensor, Tensor, Tensor],
    drift: float | Tensor,
    scale: float | Tensor,
    preconditioner: Tensor | None = None,
) -> Tensor:
    r"""Log Metropolis–Hastings ratio (N,) of a Langevin proposal, from positions, potentials and gradients.

    .. math:: \log\frac{\pi(y)\, q(x|y)}{\pi(x)\, q(y|x)}, \quad
        \pi \propto e^{-U/T}, \; q(y|x) = N(x - d P \nabla U(x), s^2 P), \; T = s^2 / 2d

    Without drift the proposal is symmetric and the temperature 1: the ratio is :math:`U(x) - U(y)`.

    Example:
        >>> x, y = torch.tensor([[1.0]]), torch.tensor([[2.0]])  # U = x²/2: ratio η/4 (x² − y²)
        >>> log_acceptance((x, x[:, 0] ** 2 / 2, x), (y, y[:, 0] ** 2 / 2, y), 0.5, 1.0)
        tensor([-0.3750])
    """
    x, u_x, g_x = old
    y, u_y, g_y = new
    # With D = y − x, |D + dPg_x|² − |D − dPg_y|² over P is D·2d(g_x + g_y) + d²P(g_x² − g_y²): no division by P.
    metric = g_x.square() - g_y.square() if preconditioner is None else (g_x.square() - g_y.square()) * preconditioner
    quadratic = (2 * (y - x) * (g_x + g_y) + metric * drift).flatten(1).sum(1)
    inverse = 2 * drift / scale**2
    inverse = torch.where(drift == 0, 1.0, inverse) if isinstance(drift, Tensor) else inverse if drift else 1.0
    return inverse * (u_x - u_y) + (drift / (2 * scale**2)) * quadratic


def move_block(
    potential: Potential,
    point: Point,
    noise: Tensor,
    uniform: Tensor | None,
    scales: list[tuple[float, float]] | Tensor,
    preconditioner: Tensor | None,
    clip: float | None,
    trace: int,
    rule: Any = None,
) -> tuple[Point, Tensor, Tensor]:
    """Take K Langevin steps from a point: positions (N, *event), potentials (N,) and gradients.

    Arguments:
        noise: standard normal draws, (K, N, *event); overwritten.
        uniform: uniform draws (K, N) of the Metropolis tests, or None for unadjusted steps.
        scales: K pairs of drift and noise scales, or a tensor (K, 2) of them.
        trace: chains, from the first, whose path (K, trace, *event) is returned.
        rule: a kernel whose ``propose`` and ``log_ratio`` take the place of the Langevin update's, or None.

    Returns:
        The new point; sums of acceptance probabilities, clipped gradients and reverted proposals (3,); the path.
    """
    counts, path = noise.new_zeros(3), []
    for k, (drift, scale) in enumerate(scales):
        moving = (drift, scale, preconditioner)
        y = rule.propose(point, noise[k]) if rule else langevin_update(point[0], point[2], noise[k], *moving)
        u, g = value_and_grad(potential, y)
        keep = _keepable(u, g)
        if clip is not None:
            g, met = clip_gradient(g, clip)
            counts[1] += met
        if keep is not None:
            counts[2] += (~keep).sum()
        if uniform is not None:
            ratio = rule.log_ratio(point, (y, u, g)) if rule else log_acceptance(point, (y, u, g), *moving)
            alpha = ratio.clamp(max=0).exp()
            if keep is not None:
                alpha = torch.where(keep, torch.where(torch.isneginf(u), 1.0, alpha), 0.0)
            counts[0] += alpha.sum()
            keep = uniform[k] < alpha
        point = (y, u, g) if keep is None else _choose(keep, (y, u, g), point)
        if trace:
            path.append(point[0][:trace])
    return point, counts, torch.stack(path) if trace else noise.new_empty(0)


def all_finite(energy: Tensor, grad: Tensor) -> Tensor:
    """Mask (N,) of chains whose energy and gradient are finite."""
    return torch.isfinite(energy) & torch.isfinite(grad).flatten(1).all(1)


def _keepable(energy: Tensor, grad: Tensor) -> Tensor | None:
    """Mask (N,) of finite proposals, or None if all surely are; −∞ passes, to be found and raised by the caller."""
    # On a CPU one cheap sum settles the usual case; to read it from a GPU would wait for all work under way.
    if not torch.compiler.is_compiling() and not energy.is_cuda and math.isfinite((energy.sum() + grad.sum()).item()):
        return None
    return all_finite(energy, grad) | torch.isneginf(energy)


def _choose(keep: Tensor, new: Point, old: Point) -> Point:
    wide = keep.view(-1, *[1] * (new[0].ndim - 1))
    return torch.where(wide, new[0], old[0]), torch.where(keep, new[1], old[1]), torch.where(wide, new[2], old[2])


def clip_gradient(grad: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Scale each chain's gradient (N, *event) down to a norm of at most `bound`, and count those that were larger."""
    norm = grad.flatten(1).norm(dim=1)
    factor = (bound / norm.clamp(min=bound)).view(-1, *[1] * (grad.ndim - 1))
    return grad * factor, (norm > bound).sum()


class Fastest(NamedTuple):
    """A form of a target, what moves chains over it by whole blocks of whole chunks, and what by any others."""

    potential: Potential
    move: MoveBlock
    odd: MoveBlock
    block: int = BLOCK  # most steps of a block


def fastest(
    target: Potential,
    x: Tensor,
    compile: bool | None,  # noqa: A002
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
) -> Fastest:
    """The form of a target that runs fastest: see `compile` and `precision` of `run_chains`.

    A compiled program is taken where it agrees with the potential at some points (N, *event).
    """
    program = None if compile is False else gpu_form(target, x, precision)
    if program is not None and agrees(target, program, x, AGREEMENT[precision]):
        return Fastest(program, _call_gpu, _call_gpu, GPU_BLOCK)
    if precision != "fp32":
        return Fastest(rounded_form(target, precision), move_block, move_block)
    program = None if compile is False else compiled_form(target, warn=compile is True)
    if program is not None and agrees(target, program, x):
        return Fastest(program, move_block, move_block)
    if not compile:
        return Fastest(target, move_block, move_block)
    if x.is_cuda:
        return Fastest(target, Captured(move_block), move_block)
    if reason := why_not_compiled():
        warnings.warn(f"compile: {reason}; the plain steps run instead", RuntimeWarning, stacklevel=4)
        return Fastest(target, move_block, move_block)
    return Fastest(target, _call_compiled, move_block)


def _call_gpu(
    potential: GPUPerceptrons,
    point: Point,
    noise: Tensor,
    uniform: Tensor | None,
    scales: list[tuple[float, float]],
    preconditioner: Tensor | None,
    clip: float | None,
    trace: int,
) -> tuple[Point, Tensor, Tensor]:
    if preconditioner is not None or clip is not None:  # which the program does not know: its energies alone serve
        return move_block(potential, point, noise, uniform, scales, preconditioner, clip, trace)
    return potential.move(point, noise, uniform, _table(scales, noise), trace)


def _table(scales: list[tuple[float, float]], like: Tensor) -> Tensor:
    """Scales as a tensor (K, 2), without waiting for the device."""
    table = torch.tensor(scales, dtype=like.dtype, pin_memory=like.is_cuda)
    return table.to(like.device, non_blocking=True)


def _call_compiled(*moving: Any) -> tuple[Point, Tensor, Tensor]:
    potential, point, noise, uniform, scales, *rest = moving
    # Scales go in as a tensor: as numbers, each new one would be compiled into a program of its own.
    return _compiled()(potential, point, noise, uniform, _table(scales, noise), *rest)


@functools.cache
def _compiled() -> MoveBlock:
    # With the calls between the kernels compiled too, few chains are not held up by the interpreter.
    return torch.compile(move_block, dynamic=False, options={"cpp_wrapper": True})


@functools.cache
def why_not_compiled() -> str:
    """Why ``torch.compile`` cannot work here, or an empty string."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        return str(error).strip().splitlines()[0]
    return ""
