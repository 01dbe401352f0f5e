"""Many Langevin chains in one tensor: start, run, tune."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, check_number, fail
from latentebm.progress import Track, silent
from latentebm.sampling.kernels import Kernel, langevin_update, log_acceptance

__all__ = [
    "ChainInfo",
    "ChainRun",
    "ChainState",
    "Potential",
    "check_kernel",
    "run_chains",
    "start_chains",
    "tune_step",
]

Potential = Callable[[Tensor], Tensor]
REDRAWS = 100


class ChainState(NamedTuple):
    """Where the chains are, (N, *event), with potential (N,), drift gradient (N, *event) and steps done so far."""

    position: Tensor
    energy: Tensor
    grad: Tensor
    step: int


class ChainInfo(NamedTuple):
    """How the chains went.

    Attributes:
        acceptance: mean Metropolis acceptance probability; 1 for unadjusted kernels.
        step_size: drift scale of the last step.
        reverted: proposals of non-finite energy or gradient, taken back.
        clipped: share of gradients that met the kernel's bound.
        steps: steps done.
    """

    acceptance: float
    step_size: float
    reverted: int
    clipped: float
    steps: int


class ChainRun(NamedTuple):
    """The final state, how it went, and the kept path of the first chains, (draws, chains, *event)."""

    state: ChainState
    info: ChainInfo
    trace: Tensor


def start_chains(
    potential: Potential, position: Tensor, redraw: Callable[[int], Tensor] | None = None, *, chunk: int = 16_384
) -> ChainState:
    """Evaluate the potential at the start; chains of non-finite energy are redrawn up to 100 times.

    Arguments:
        potential: maps (N, *event) to (N,), in nats.
        position: starting points, (N, *event), floating.
        redraw: gives k fresh starting points, (k, *event), or none.
        chunk: chains evaluated at once.

    Raises:
        ValueError: the positions are not floating, the potential's shape is not (N,), or a chain finds no finite start.

    Example:
        >>> start_chains(lambda x: x.square().sum(1) / 2, torch.ones(2, 3)).energy
        tensor([1.5000, 1.5000])
    """
    if not position.is_floating_point():
        raise fail("position", "a floating tensor", str(position.dtype), "convert it with .float()")
    if position.ndim == 0 or len(position) == 0:
        raise fail("position", "shape (N, …) with N ≥ 1", tuple(position.shape), "start at least one chain")
    position = position.detach().clone()
    parts = [_value_and_grad(potential, part) for part in position.split(chunk)]
    energy, grad = (torch.cat(both) for both in zip(*parts, strict=True))
    for _ in range(REDRAWS if redraw is not None else 0):
        bad = (~_finite(energy, grad)).nonzero()[:, 0]
        if not len(bad):
            break
        position[bad] = redraw(len(bad))  # type: ignore[misc]
        energy[bad], grad[bad] = _value_and_grad(potential, position[bad])
    bad = (~_finite(energy, grad)).nonzero()[:, 0]
    if len(bad):
        chain = int(bad[0])
        raise fail(
            "start",
            "a finite potential and gradient",
            f"{energy[chain].item()} at chain {chain}" + (f" after {REDRAWS} redraws" if redraw else ""),
            "start the chains where the density is positive",
        )
    return ChainState(position, energy, grad, 0)


@torch.no_grad()
def run_chains(
    potential: Potential,
    state: ChainState | Tensor,
    kernel: Kernel,
    n_steps: int,
    *,
    generator: torch.Generator,
    trace: int = 0,
    thin: int = 1,
    chunk: int = 16_384,
    track: Track = silent,
) -> ChainRun:
    r"""Advance every chain `n_steps` by the kernel.

    Only gradients in the position are formed, never in parameters. A proposal whose energy or gradient is not finite
    is taken back and counted. On Ctrl-C the steps done so far are returned.

    Arguments:
        potential: maps (N, *event) to (N,), in nats. Every chain's gradient is that of its own potential.
        state: starting points (N, *event), or the state of an earlier run, whose step count goes on.
        kernel: a Langevin kernel.
        n_steps: steps to take.
        generator: source of the noise, on the device of the positions.
        trace: how many chains, from the first, have their path kept.
        thin: keep every `thin`-th step of those paths.
        chunk: chains evaluated at once, which bounds the memory of the potential's activations.
        track: shows progress.

    Returns:
        The final state, how it went, and the kept paths.

    Raises:
        ValueError: an argument is out of range, a start is not finite, or the potential's shape is not (N,).
        FloatingPointError: an energy of −∞, which would hold its chain for ever.

    References:
        Bayesian learning via stochastic gradient Langevin dynamics (Welling and Teh, 2011)

    Example:
        >>> from latentebm.sampling.kernels import MALA
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 1, generator=g)
        >>> run = run_chains(lambda x: 2 * (x - 1).square().sum(1), x, MALA(0.2), 50, generator=g)
        >>> abs(run.state.position.mean().item() - 1) < 0.05, abs(run.state.position.std().item() - 0.5) < 0.05
        (True, True)
    """
    _check_run(kernel, n_steps, trace, thin, chunk)
    state = start_chains(potential, state, chunk=chunk) if isinstance(state, Tensor) else _own(state)
    tally = _Tally(len(state.position))
    path: list[Tensor] = []
    steps = 0
    try:
        for _ in track(range(n_steps), "chains"):
            scales = kernel.scales(state.step + steps)
            for start in range(0, len(state.position), chunk):
                _advance(potential, state, slice(start, start + chunk), kernel, scales, generator, tally)
            steps += 1
            if trace and steps % thin == 0:
                path.append(state.position[:trace].clone())
    except KeyboardInterrupt:
        pass  # what is done is worth keeping; info.steps tells how far it came
    event = state.position.shape[1:]
    kept = torch.stack(path) if path else state.position.new_empty((0, min(trace, len(state.position)), *event))
    info = tally.info(kernel, kernel.scales(max(0, state.step + steps - 1))[0], steps)
    return ChainRun(state._replace(step=state.step + steps), info, kept)


def tune_step(
    potential: Potential,
    state: ChainState | Tensor,
    kernel: Kernel,
    n_steps: int,
    *,
    generator: torch.Generator,
    target: float = 0.574,
) -> tuple[Kernel, ChainState]:
    r"""Fit the step size of a Metropolis-adjusted kernel to a target acceptance, while the chains run.

    .. math:: \log \eta_{t+1} = \log \eta_t + (t + 1)^{-0.6} (\bar\alpha_t - \alpha^*)

    with :math:`\bar\alpha_t` the mean acceptance over all chains; the result averages the later half of the path.

    Arguments:
        potential: maps (N, *event) to (N,), in nats.
        state: starting points, or a state.
        kernel: a Metropolis-adjusted kernel; its step is the first guess.
        n_steps: warm-up steps.
        generator: source of the noise.
        target: wanted mean acceptance probability; 0.574 is optimal in high dimension.

    Returns:
        The kernel at the fitted step, and the state reached.

    Raises:
        ValueError: the kernel is not Metropolis-adjusted, or an argument is out of range.

    References:
        A tutorial on adaptive MCMC (Andrieu and Thoms, 2008); Optimal scaling of discrete approximations to Langevin
        diffusions (Roberts and Rosenthal, 1998)

    Example:
        >>> from latentebm.sampling.kernels import MALA
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(1000, 1, generator=g)
        >>> kernel, _ = tune_step(lambda x: x.square().sum(1) / 2, x, MALA(0.01), 200, generator=g)
        >>> run = run_chains(lambda x: x.square().sum(1) / 2, x, kernel, 50, generator=g)
        >>> abs(run.info.acceptance - 0.574) < 0.05
        True
    """
    if not kernel.adjusted:
        raise fail("kernel", "a Metropolis-adjusted one", type(kernel).__name__, "use MALA")
    check_int("n_steps", n_steps)
    check_number("target", target, low=0.01, high=0.99)
    state = start_chains(potential, state) if isinstance(state, Tensor) else state
    log_step, later = math.log(kernel.scales(0)[0]), []
    for t in range(n_steps):
        run = run_chains(potential, state, kernel.with_step(math.exp(log_step)), 1, generator=generator)
        state = run.state
        log_step += (t + 1) ** -0.6 * (run.info.acceptance - target)
        if t >= n_steps // 2:
            later.append(log_step)
    return kernel.with_step(math.exp(sum(later) / len(later))), state


class _Tally:
    """Counts over a run; acceptance is summed on the device, to be read once."""

    def __init__(self, chains: int) -> None:
        self.chains = chains
        self.accepted: Tensor | float = 0.0
        self.clipped: Tensor | float = 0.0
        self.reverted = 0

    def info(self, kernel: Kernel, step_size: float, steps: int) -> ChainInfo:
        moves = max(1, self.chains * steps)
        acceptance = float(self.accepted) / moves if kernel.adjusted else 1.0
        return ChainInfo(acceptance, step_size, self.reverted, float(self.clipped) / moves, steps)


def _advance(
    potential: Potential,
    state: ChainState,
    rows: slice,
    kernel: Kernel,
    scales: tuple[float, float],
    generator: torch.Generator,
    tally: _Tally,
) -> None:
    """One step of one chunk of chains, written into `state`."""
    x, energy, grad = state.position[rows], state.energy[rows], state.grad[rows]
    noise = torch.empty_like(x).normal_(generator=generator)
    y = langevin_update(x, grad, noise, *scales, kernel.preconditioner)
    u, g = _value_and_grad(potential, y)
    keep = _reverting(u, g, tally, rows.start)
    if kernel.clip is not None:
        g, met = _clipped(g, kernel.clip)
        tally.clipped = tally.clipped + met
    if kernel.adjusted:
        log_ratio = log_acceptance((x, energy, grad), (y, u, g), *scales, kernel.preconditioner)
        alpha = log_ratio.clamp_(max=0).exp_()
        if keep is not None:
            alpha = torch.where(keep, alpha, torch.zeros_like(alpha))
        tally.accepted = tally.accepted + alpha.sum(dtype=torch.float64)
        keep = torch.empty_like(alpha).uniform_(generator=generator) < alpha
    if keep is not None:
        wide = keep.view(-1, *[1] * (x.ndim - 1))
        y, u, g = torch.where(wide, y, x), torch.where(keep, u, energy), torch.where(wide, g, grad)
    x.copy_(y), energy.copy_(u), grad.copy_(g)


def _value_and_grad(potential: Potential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Potential and its gradient in the position alone; the sum keeps each chain's gradient its own."""
    fused = getattr(potential, "value_and_grad", None)
    if fused is not None:
        energy, grad = fused(x)
        return energy, grad
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        energy = potential(leaf)
        if not isinstance(energy, Tensor) or energy.shape != leaf.shape[:1]:
            got = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
            raise fail("potential", f"shape ({len(x)},)", got, "return one energy a chain, for example .squeeze(-1)")
        (grad,) = torch.autograd.grad(energy.sum(), leaf)
    return energy.detach(), grad


def _finite(energy: Tensor, grad: Tensor) -> Tensor:
    return torch.isfinite(energy) & torch.isfinite(grad).flatten(1).all(1)


def _reverting(energy: Tensor, grad: Tensor, tally: _Tally, first: int) -> Tensor | None:
    """Mask (N,) of proposals fit to be kept, or none if all are: one cheap sum settles the usual case."""
    if math.isfinite((energy.sum() + grad.sum()).item()):
        return None
    if bool((energy == -math.inf).any()):
        chain = first + int((energy == -math.inf).nonzero()[0, 0])
        raise FloatingPointError(f"potential: expected finite energies, got -inf at chain {chain}; bound it from below")
    keep = _finite(energy, grad)
    tally.reverted += int((~keep).sum())
    return keep


def _clipped(grad: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    norm = grad.flatten(1).norm(dim=1)
    factor = (bound / norm.clamp(min=bound)).view(-1, *[1] * (grad.ndim - 1))
    return grad * factor, (norm > bound).sum()


def _own(state: ChainState) -> ChainState:
    return ChainState(state.position.clone(), state.energy.clone(), state.grad.clone(), state.step)


def check_kernel(kernel: Kernel) -> Kernel:
    """Return `kernel` if it is one.

    Raises:
        ValueError: it is not.

    Example:
        >>> from latentebm.sampling.kernels import ULA
        >>> check_kernel(ULA(0.1)).scales(0)[0]
        0.1
    """
    if not isinstance(kernel, Kernel):
        raise fail("kernel", "ULA, SGLD, ImproperSGLD or MALA", repr(kernel), "pass for example MALA(0.1)")
    return kernel


def _check_run(kernel: Kernel, n_steps: int, trace: int, thin: int, chunk: int) -> None:
    check_kernel(kernel)
    check_int("n_steps", n_steps)
    check_int("trace", trace, low=0)
    check_int("thin", thin)
    check_int("chunk", chunk)
