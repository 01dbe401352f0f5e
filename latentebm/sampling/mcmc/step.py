"""The one Langevin update, its fused form for many tensors, and the Metropolis ratio of its proposals."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["langevin_update", "langevin_update_foreach", "log_acceptance"]


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
