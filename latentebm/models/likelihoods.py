"""Observation models p(x | f) of images given a decoder's output f: log-likelihood, mean, and draws from noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from latentebm.checks import check_number

__all__ = ["LIKELIHOODS", "Bernoulli", "Gaussian"]

FLOOR = 0.01  # least standard deviation of a pixel


class Bernoulli:
    r"""Bernoulli pixels with logits :math:`f`, the usual pseudo-likelihood for grey values in [0, 1].

    .. math:: \log p(x|f) = \sum_j x_j f_j - \mathrm{softplus}(f_j)

    Example:
        >>> Bernoulli().log_prob(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
        tensor([-2.7726])
    """

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-likelihood (N,), nats; grey values act as probabilities."""
        return -F.binary_cross_entropy_with_logits(parameter, x, reduction="none").flatten(1).sum(1)

    def mean(self, parameter: Tensor) -> Tensor:
        """Pixel means in [0, 1]."""
        return parameter.sigmoid()

    def observe(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Pixels in {0, 1}; their gradient in the mean is taken as 1."""
        hard = (torch.special.ndtr(noise) < mean).to(mean)
        return hard + mean - mean.detach() if mean.requires_grad else hard


class Gaussian(nn.Module):
    r"""Gaussian pixels around :math:`\mathrm{sigmoid}(f)`, with one standard deviation learned beside the decoder.

    .. math:: \log p(x|f) = \sum_j \log N(x_j; \mathrm{sigmoid}(f_j), s^2), \qquad s = \max(e^\theta, 0.01)

    The initial `scale` s, in units of pixel values in [0, 1], is fitted with the VAE.

    References:
        Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202

    Example:
        >>> Gaussian(0.1).mean(torch.zeros(1, 1, 1, 1)).item()
        0.5
    """

    def __init__(self, scale: float = 0.1) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(check_number("scale", scale, low=FLOOR))))

    @property
    def scale(self) -> Tensor:
        """Standard deviation s; its floor of 0.01, two and a half grey levels, keeps constant pixels finite."""
        return self.log_scale.clamp_min(math.log(FLOOR)).exp()

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-likelihood (N,), nats."""
        return Independent(Normal(self.mean(parameter), self.scale), parameter.ndim - 1).log_prob(x)

    def mean(self, parameter: Tensor) -> Tensor:
        """Pixel means in [0, 1]."""
        return parameter.sigmoid()

    def observe(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Pixels mean + s·noise."""
        return mean + self.scale * noise


LIKELIHOODS: dict[str, type[Bernoulli] | type[Gaussian]] = {"bernoulli": Bernoulli, "gaussian": Gaussian}
