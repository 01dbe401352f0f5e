"""Importance-weighted bounds on the log-likelihood: pure functions of log-weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentebm.checks import check_int, fail

__all__ = ["iwae_bound", "miwae_log_weight", "nested_bounds", "not_miwae_log_weight"]


def iwae_bound(log_weight: Tensor) -> Tensor:
    r"""Importance-weighted bound of each row, in nats.

    .. math:: \log \frac1K \sum_{k=1}^K w_k \;\le\; \log p(x) \text{ in expectation}

    equal to the ELBO at K = 1, rising with K, and equal to log p(x) when the weights are constant, that is when the
    proposal is the exact posterior.

    Arguments:
        log_weight: log-weights (K, …).

    Returns:
        Bounds (…).

    Raises:
        ValueError: there are no weights.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2016), https://arxiv.org/abs/1509.00519

    Example:
        >>> iwae_bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """
    if not log_weight.ndim or not len(log_weight):
        raise fail(
            "log_weight", "at least one weight along the first dimension", tuple(log_weight.shape), "pass (K, …)"
        )
    return torch.logsumexp(log_weight, 0) - math.log(len(log_weight))


def nested_bounds(log_weight: Tensor, k: int) -> Tensor:
    r"""Bound of k draws, averaged over the groups of k that K draws fall into.

    .. math:: \frac{k}{K} \sum_{g=1}^{K/k} \log \frac1k \sum_{j \in g} w_j

    On the same draws it rises with k wherever k divides the next, by Jensen's inequality, and not just on average.

    Arguments:
        log_weight: log-weights (K, …).
        k: draws a group; divides K.

    Returns:
        Bounds (…).

    Raises:
        ValueError: k does not divide K.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2016), https://arxiv.org/abs/1509.00519

    Example:
        >>> w = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> [round(nested_bounds(w, k).item(), 3) for k in (1, 2, 4)]
        [1.5, 1.62, 2.054]
    """
    total = len(log_weight)
    if total % check_int("k", k):
        raise fail("k", f"a divisor of {total}", k, "pass a group size that divides the draws")
    groups = log_weight.reshape(total // k, k, *log_weight.shape[1:])
    return iwae_bound(groups.transpose(0, 1)).mean(0)


def miwae_log_weight(log_likelihood: Tensor, log_prior: Tensor, log_proposal: Tensor) -> Tensor:
    r"""Log-weights of incomplete rows, whose missing cells are integrated out.

    .. math:: \log w_k = \log p(x_{obs}|z_k) + \log p_0(z_k) - \log q(z_k|x_{obs}), \quad z_k \sim q

    Arguments:
        log_likelihood: of the observed cells alone, (K, N), nats.
        log_prior: (K, N).
        log_proposal: (K, N).

    Returns:
        Log-weights (K, N).

    References:
        MIWAE: Deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Example:
        >>> miwae_log_weight(torch.tensor(-2.0), torch.tensor(-1.0), torch.tensor(-0.5))
        tensor(-2.5000)
    """
    return log_likelihood + log_prior - log_proposal


def not_miwae_log_weight(
    log_likelihood: Tensor, log_missing: Tensor, log_prior: Tensor, log_proposal: Tensor
) -> Tensor:
    r"""Log-weights of rows missing not at random: the mask is part of what was seen.

    .. math:: \log w_k = \log p(s|x_{obs}, \tilde x_{mis,k}) + \log p(x_{obs}|z_k) + \log p_0(z_k) - \log q(z_k|x_{obs})

    with :math:`\tilde x_{mis,k} \sim p(x_{mis}|z_k)`.

    Arguments:
        log_likelihood: of the observed cells, (K, N), nats.
        log_missing: of the mask given the completed row, (K, N).
        log_prior: (K, N).
        log_proposal: (K, N).

    Returns:
        Log-weights (K, N).

    References:
        not-MIWAE: Deep generative modelling with missing not at random data (Ipsen, Mattei and Frellsen, 2021),
        https://arxiv.org/abs/2006.12871

    Example:
        >>> one = torch.tensor(1.0)
        >>> not_miwae_log_weight(one, -one, one, one)
        tensor(0.)
    """
    return miwae_log_weight(log_likelihood, log_prior, log_proposal) + log_missing
