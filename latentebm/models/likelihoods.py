"""Observation models p(x | decoder output): what a decoder's numbers mean."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliLaw
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

__all__ = ["LIKELIHOODS", "Bernoulli", "Gaussian", "Likelihood"]


class Likelihood(Protocol):
    """An observation model over images of one shape."""

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-likelihood (N,) of images given the decoder's output, nats."""
        ...

    def mean(self, parameter: Tensor) -> Tensor:
        """Mean image of the decoder's output."""
        ...

    def law(self, parameter: Tensor) -> Distribution:
        """The distribution itself, for sampling observation noise."""
        ...


class Bernoulli:
    r"""Bernoulli pixels with logits :math:`f`, the usual pseudo-likelihood for grey values in [0, 1].

    .. math:: \log p(x|f) = \sum_j x_j f_j - \mathrm{softplus}(f_j)

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Example:
        >>> Bernoulli().log_prob(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
        tensor([-2.7726])
    """

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-likelihood (N,), nats; grey values act as probabilities."""
        loss = F.binary_cross_entropy_with_logits(parameter, x, reduction="none")
        return -loss.flatten(1).sum(1)

    def mean(self, parameter: Tensor) -> Tensor:
        """Pixel means in [0, 1]."""
        return parameter.sigmoid()

    def law(self, parameter: Tensor) -> Distribution:
        """Independent Bernoulli pixels."""
        return Independent(BernoulliLaw(logits=parameter), parameter.ndim - 1)


class Gaussian:
    r"""Gaussian pixels of one fixed standard deviation around :math:`\mathrm{sigmoid}(f)`.

    .. math:: \log p(x|f) = \sum_j \log N(x_j; \mathrm{sigmoid}(f_j), s^2)

    Arguments:
        scale: standard deviation s, in units of pixel values in [0, 1].

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Example:
        >>> Gaussian(0.1).mean(torch.zeros(1, 1, 1, 1)).item()
        0.5
    """

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = scale

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-likelihood (N,), nats."""
        return self.law(parameter).log_prob(x)

    def mean(self, parameter: Tensor) -> Tensor:
        """Pixel means in [0, 1]."""
        return parameter.sigmoid()

    def law(self, parameter: Tensor) -> Distribution:
        """Independent normal pixels."""
        return Independent(Normal(parameter.sigmoid(), torch.as_tensor(self.scale)), parameter.ndim - 1)


LIKELIHOODS: dict[str, type[Bernoulli] | type[Gaussian]] = {"bernoulli": Bernoulli, "gaussian": Gaussian}
