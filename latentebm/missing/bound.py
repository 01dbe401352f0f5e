"""What posterior draws of incomplete rows give, and the importance-weighted bounds made of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, fail

__all__ = ["Terms", "iwae_bound", "nested_bounds"]


class Terms(NamedTuple):
    r"""What K draws :math:`z_k \sim q(z|x_{obs})` of N rows give: everything a bound or an imputation is made of."""

    z: Tensor  # latent draws, (K, N, d)
    log_likelihood: Tensor  # of the observed cells alone, (K, N), nats, as the next three
    log_prior: Tensor
    log_proposal: Tensor
    log_missing: Tensor  # of the mask given the completed row; zeros without a missing model
    parameter: Tensor  # decoder output, (K, N, P)
    completed: (
        Tensor  # features of rows completed from p(x | z), (K, N, F), where asked for; else 0 where missing, (N, F)
    )

    @property
    def log_weight(self) -> Tensor:
        r"""Log-weights (K, N); a missing model makes the mask part of what was seen.

        .. math:: \log w_k = \log p(x_{obs}|z_k) + \log p_0(z_k) - \log q(z_k|x_{obs})
                  + \log p(s|x_{obs}, \tilde x_{mis,k}), \quad \tilde x_{mis,k} \sim p(x_{mis}|z_k)
        """
        return self.log_likelihood + self.log_prior - self.log_proposal + self.log_missing


def iwae_bound(log_weight: Tensor) -> Tensor:
    r"""Importance-weighted bound (…) of log-weights (K, …), in nats.

    .. math:: \log \frac1K \sum_{k=1}^K w_k \;\le\; \log p(x) \text{ in expectation}

    equal to the ELBO at K = 1, rising with K, and to log p(x) where the proposal is the exact posterior.

    References:
        Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2016), https://arxiv.org/abs/1509.00519

    Example:
        >>> iwae_bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """
    if not log_weight.ndim or not len(log_weight):
        raise fail("log_weight", "at least one weight, (K, …)", tuple(log_weight.shape), "pass one per draw")
    return torch.logsumexp(log_weight, 0) - math.log(len(log_weight))


def nested_bounds(log_weight: Tensor, k: int) -> Tensor:
    r"""Bound (…) of k draws, averaged over the groups of k that K draws, a multiple of k, fall into.

    .. math:: \frac{k}{K} \sum_{g=1}^{K/k} \log \frac1k \sum_{j \in g} w_j

    On the same draws it rises with k wherever k divides the next, by Jensen's inequality, and not just on average.

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
