"""A tilt of few numbers: soft clusters of the codes, each made more or less likely as a whole."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int

__all__ = ["MixtureEnergy"]


class MixtureEnergy(nn.Module):
    r"""Energy that reweights soft clusters: K Gaussian components, one ratio each and member.

    .. math:: E_m(z) = -\log \sum_k r_k(z)\, \rho_{mk}, \qquad
              r_k(z) = \frac{\pi_k N(z; \mu_k, \Sigma_k)}{\sum_j \pi_j N(z; \mu_j, \Sigma_j)}

    The components are learned from the many biased codes; a small reference need only say how much of each there
    should be. Ratios of one are no tilt.

    Arguments:
        dim: length d of the code.
        clusters: K.
        members: M.

    Raises:
        ValueError: a size below one, or codes of another length.

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002)

    Example:
        >>> MixtureEnergy(2, 3, 4).members(torch.zeros(5, 2)).shape
        torch.Size([4, 5])
    """

    mean: Tensor
    whitening: Tensor
    log_scale: Tensor
    log_ratio: Tensor

    def __init__(self, dim: int, clusters: int, members: int = 1) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dim": check_int("dim", dim),
            "clusters": check_int("clusters", clusters),
            "members": check_int("members", members),
        }
        self.register_buffer("mean", torch.zeros(clusters, dim))
        self.register_buffer("whitening", torch.eye(dim).repeat(clusters, 1, 1))
        self.register_buffer("log_scale", torch.full((clusters,), -math.log(clusters)))
        self.register_buffer("log_ratio", torch.zeros(members, clusters))

    def set_components(self, weight: Tensor, mean: Tensor, whitening: Tensor) -> None:
        r"""Take the components of a fitted mixture.

        Arguments:
            weight: π, (K,).
            mean: μ, (K, d).
            whitening: matrices W with :math:`W W^\top = \Sigma^{-1}`, (K, d, d).
        """
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        log_volume = torch.linalg.slogdet(whitening).logabsdet
        self.log_scale.copy_(weight.log() + log_volume)

    def log_responsibilities(self, z: Tensor) -> Tensor:
        """Logarithms of r_k(z), (N, K), of codes (N, d)."""
        check_event("z", z, (self.config["dim"],))
        return torch.log_softmax(self.log_scale - 0.5 * self._whitened(z).square().sum(-1), -1)

    def members(self, z: Tensor) -> Tensor:
        """Energies (M, N) of codes (N, d), or of codes a member (M, N, d)."""
        log_r = self.log_responsibilities(z.flatten(0, -2)).unflatten(0, z.shape[:-1])
        return -torch.logsumexp(log_r + self.log_ratio.unsqueeze(1), -1)

    def forward(self, z: Tensor) -> Tensor:
        """Mean energy (N,) over members."""
        return self.members(z).mean(0)

    @torch.no_grad()
    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Mean energies (N,) of codes (N, d) and their gradients (N, d) in closed form, without a graph.

        .. math:: \nabla E = \sum_k \Big(r_k - \frac1M \sum_m q_{mk}\Big) \nabla \ell_k, \quad
                  \ell_k = \log \pi_k N(z; \mu_k, \Sigma_k), \quad q_{mk} \propto r_k \rho_{mk}
        """
        check_event("z", z, (self.config["dim"],))
        white = self._whitened(z)
        log_r = torch.log_softmax(self.log_scale - 0.5 * white.square().sum(-1), -1)
        tilted = log_r + self.log_ratio.unsqueeze(1)
        share = log_r.exp() - tilted.softmax(-1).mean(0)
        grad = (share.unsqueeze(-1) * white).flatten(1) @ self.whitening.mT.flatten(0, 1)
        return -torch.logsumexp(tilted, -1).mean(0), -grad

    def _whitened(self, z: Tensor) -> Tensor:
        """(z − μ_k)'W_k, (N, K, d), by one product for all clusters at once."""
        shift = torch.einsum("kd,kde->ke", self.mean, self.whitening)
        return torch.einsum("nd,kde->nke", z, self.whitening) - shift
