"""Objectives of a tilt's energy: pure functions of energies on reference and base draws.

Losses are minimised. They take energies of posterior draws of reference images, (…, N), and of base draws, (…, K), in
nats, and return (…): leading dimensions are ensemble members.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_number
from latentebm.objectives.contrast import contrastive_loss
from latentebm.objectives.score_matching import denoising_score_matching

__all__ = ["calibrated", "gain", "jensen_loss", "likelihood_loss", "log_partition", "nce_loss", "posterior_score_loss"]


def log_partition(base: Tensor) -> Tensor:
    r"""Estimate log Z from energies of base draws, consistent as K grows.

    .. math:: \log \hat Z = \log \frac1K \sum_k e^{-E(z_k)}, \quad z_k \sim p_0

    Example:
        >>> log_partition(torch.full((4,), 0.5))
        tensor(-0.5000)
    """
    return torch.logsumexp(-base, -1) - math.log(base.shape[-1])


def gain(reference: Tensor, base: Tensor) -> Tensor:
    r"""Held-out gain: how many nats the tilt adds to the mean log-likelihood bound of a reference image.

    .. math:: \hat G(E) = -\mathrm{mean}_i\, E(z_i) - \log \hat Z

    Example:
        >>> gain(torch.full((2,), 3.0), torch.full((4,), 3.0))
        tensor(0.)
    """
    return -reference.mean(-1) - log_partition(base)


def likelihood_loss(reference: Tensor, base: Tensor) -> Tensor:
    r"""Negative `gain`, minimised by :math:`E^* = -\log(q_{ref}/p_0)` up to a constant."""
    return -gain(reference, base)


def jensen_loss(reference: Tensor, base: Tensor, *, energy_penalty: float = 0.25) -> Tensor:
    r"""Negative Jensen bound of the gain with an energy penalty :math:`\lambda`.

    .. math:: E_{q}[E] - E_{p_0}[E] + \lambda (E_q[E^2] + E_{p_0}[E^2])

    Jensen's inequality bounds the gain from *above*, and the bound alone has no maximum. With the penalty the optimum,
    where the pointwise derivative is zero, is :math:`E = -\tanh(\tfrac12 \log(q/p_0)) / 2\lambda`; it is calibrated to
    first order at :math:`\lambda = 1/4`, and `calibrated` inverts it. Without λ > 0, in 1/nats, there is no minimum.

    Example:
        >>> jensen_loss(torch.tensor([-1.0]), torch.tensor([1.0]), energy_penalty=0.25)
        tensor(-1.5000)
    """
    check_number("energy_penalty", energy_penalty, low=0, open_low=True)
    return contrastive_loss(reference, base, energy_penalty=energy_penalty)


def nce_loss(reference: Tensor, base: Tensor) -> Tensor:
    r"""Logistic loss of telling reference draws from base draws by the logit :math:`-E`, with equal weights.

    .. math:: \mathrm{mean}_i \log(1 + e^{E(z_i)}) + \mathrm{mean}_k \log(1 + e^{-E(z_k)})

    The optimum is :math:`E^* = -\log(q_{ref}/p_0)` with its constant: the equal weights make log Z zero there.

    References:
        NCP-VAE: Variational Autoencoders with Noise Contrastive Priors (Aneja et al., 2021),
        https://arxiv.org/abs/2010.02917

    Example:
        >>> nce_loss(torch.zeros(2), torch.zeros(4))
        tensor(1.3863)
    """
    return F.softplus(reference).mean(-1) + F.softplus(-base).mean(-1)


def posterior_score_loss(
    energy: Callable[[Tensor], Tensor], mean: Tensor, scale: Tensor, *, generator: torch.Generator
) -> Tensor:
    r"""Denoising score matching of the total potential, the reference posteriors' own spread being the noise.

    .. math:: \overline{s^2}\; \mathrm{mean}_i\, \tfrac12 \left|\nabla E(z_i) + z_i - (z_i - m_i)/s_i^2\right|^2,
              \quad z_i \sim N(m_i, s_i^2)

    No noise is added, so the loss is least where :math:`\nabla (E - \log p_0) = -\nabla \log q_{ref}`, the unsmoothed
    optimum of the likelihood. It needs neither base draws nor log Z, but does not find the relative mass of parts of
    the reference that no draws connect. Draws come in pairs m ± sε from posterior means and standard deviations
    (…, N, d) of reference images.

    Example:
        >>> g, mean = torch.Generator().manual_seed(0), torch.full((9, 1), 2.0)
        >>> def energy(z):  # -log N(2, 0.5²) / N(0, 1): the slope is the target
        ...     return (2 * (z - 2).square() - z.square() / 2).sum(-1)
        >>> round(posterior_score_loss(energy, mean, torch.full((9, 1), 0.5), generator=g).item(), 4)
        0.0
    """

    def potential(z: Tensor) -> Tensor:
        return energy(z) + 0.5 * z.square().sum(-1)

    loss = denoising_score_matching(potential, mean, scale, generator=generator)
    # Targets are of order 1/s: one factor for all images brings the loss to order one and leaves the optimum.
    return loss * scale.square().mean()


def calibrated(energy: Tensor, *, energy_penalty: float, limit: float = 0.995) -> Tensor:
    r"""Turn a Jensen-fitted energy into the log-ratio's, inverting the penalised optimum.

    .. math:: E_{cal} = -2\,\mathrm{artanh}(-2\lambda E)

    The artanh's argument is clamped to ±`limit`, so log-ratios to ±6 at the default.

    Example:
        >>> log_ratio = torch.tensor([0.3, -2.0])
        >>> fitted = -torch.tanh(log_ratio / 2) / (2 * 0.1)
        >>> calibrated(fitted, energy_penalty=0.1)
        tensor([-0.3000,  2.0000])
    """
    check_number("energy_penalty", energy_penalty, low=0, open_low=True)
    check_number("limit", limit, low=0, high=1 - 1e-7, open_low=True)
    return 2 * torch.atanh((2 * energy_penalty * energy).clamp(-limit, limit))
