"""What posterior draws of incomplete rows give, and the importance-weighted bounds made of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from latentebm.checks import check_int, fail

__all__ = ["Terms", "iwae_bound", "nested_bounds"]


class Terms(NamedTuple):
    r"""What K draws :math:`z_k \sim q(z|x_{obs})` of N rows give: everything a bound or an imputation is made of.

    Attributes:
        z: latent draws, (K, N, d).
        log_likelihood: of the observed cells alone, (K, N), nats.
        log_prior: (K, N).
        log_proposal: (K, N).
        log_missing: of the mask given the completed row, (K, N); zeros without a missing model.
        parameter: decoder output, (K, N, P).
        completed: features of the rows, missing cells drawn from p(x | z), (K, N, F), where asked for; else those
            observed, zeros at missing cells, (N, F).

    Example:
        >>> one = torch.tensor(1.0)
        >>> Terms(one, one, -one, one, -2 * one, one, one).log_weight
        tensor(-3.)
    """

    z: Tensor
    log_likelihood: Tensor
    log_prior: Tensor
    log_proposal: Tensor
    log_missing: Tensor
    parameter: Tensor
    completed: Tensor

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

    Raises:
        ValueError: there are no weights.

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
    r"""Bound (…) of k draws, averaged over the groups of k that K draws fall into.

    .. math:: \frac{k}{K} \sum_{g=1}^{K/k} \log \frac1k \sum_{j \in g} w_j

    On the same draws it rises with k wherever k divides the next, by Jensen's inequality, and not just on average.

    Raises:
        ValueError: k does not divide K.

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
