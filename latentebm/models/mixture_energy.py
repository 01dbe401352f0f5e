"""The energy that gives the normals of a learned prior other shares."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int
from latentebm.chunks import chunk_size, in_chunks
from latentebm.models.base.mixture_prior import COPIES, MixturePrior
from latentebm.models.energies import EnsembleEnergy

__all__ = ["MixtureEnergy"]


class MixtureEnergy(EnsembleEnergy):
    r"""Mean energy of M sets of shares of the same normals, in the place of those of a learned prior.

    .. math:: E_m(z) = -\log \sum_k \rho_{mk}\, p(k | z), \qquad \rho_{mk} = \pi'_{mk} / \pi_k

    Where p(k|z) are the prior's own responsibilities, the tilt of one member is the mixture with the shares π'. No
    energy is farther from zero than the largest log-ratio. It starts at ρ = 1, i.e. at no tilt, over normals that are
    all standard: `latentebm.tilting.clusters.fit_shares` fills in both.

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002)

    Example:
        >>> energy = MixtureEnergy(1, 2).requires_grad_(False)
        >>> energy.mixture.mean.copy_(torch.tensor([[-3.0], [3.0]])).shape
        torch.Size([2, 1])
        >>> _ = energy.log_ratio.copy_(torch.tensor([[0.4, 1.6]]).log())  # a fifth and four fifths
        >>> energy(torch.tensor([[-3.0], [3.0]])).exp()
        tensor([2.5000, 0.6250])
    """

    def __init__(self, dim: int, components: int, *, members: int = 1, limit: float | None = None) -> None:
        super().__init__({"dim": dim, "components": components, "members": members, "limit": limit})
        self.mixture = MixturePrior(dim, components)
        self.log_ratio = nn.Parameter(torch.zeros(members, check_int("components", components)))

    def members(self, z: Tensor) -> Tensor:
        """Energies (M, N) of every member, for points (N, dim) or a batch per member (M, N, dim)."""
        check_event("z", z.flatten(0, -2), (self.config["dim"],))
        ratio = self.log_ratio.exp()
        if z.ndim > 2:
            own = self._shares(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            return -(own @ ratio.unsqueeze(2)).squeeze(2).log()

        def each(part: Tensor) -> Tensor:
            return -(self._shares(part) @ ratio.T).log().T

        return in_chunks(each, z, chunk_size(COPIES * self.mixture.mean.numel(), z.device), dim=1)

    def _shares(self, z: Tensor) -> Tensor:
        """Responsibilities p(k|z), (N, K), of points (N, dim)."""
        return self.mixture.log_each(z).softmax(1)

    @torch.no_grad()
    def value_and_grad(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Energies (N,) of points (N, dim) and their gradients (N, dim) in closed form, without a graph.

        .. math:: \nabla E_m = \sum_k \Big(p(k|z) - \frac{\rho_{mk}\, p(k|z)}{\sum_j \rho_{mj}\, p(j|z)}\Big)
                  \nabla \log N(z; m_k, C_k)
        """
        check_event("z", z, (self.config["dim"],))
        each, pulls = self.mixture.each_and_pulls(z)
        own, ratio = each.softmax(1), self.log_ratio.exp()
        tilted = own @ ratio.T  # (N, M)
        gained = own * ((1 / tilted) @ ratio) / self.n_members
        return -tilted.log().mean(1), pulls(own - gained)

    def part(self, members: range) -> MixtureEnergy:
        """An ensemble of its own of some of the members, a copy."""
        part = copy.deepcopy(self)
        part.n_members = check_int("members", len(members))
        part.config = {**self.config, "members": len(members)}
        part.log_ratio = nn.Parameter(self.log_ratio[members.start : members.stop].detach().clone())
        return part
