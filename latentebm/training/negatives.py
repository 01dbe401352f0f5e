"""Draws of every member's own model for contrastive training: short Langevin chains, started anew or persistent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_number
from latentebm.sampling.chains import run_chains
from latentebm.sampling.kernels import ULA
from latentebm.sampling.persistent import ReplayBuffer

__all__ = ["NEGATIVES", "Negatives"]

NEGATIVES = ("persistent", "prior")


class Negatives:
    r"""Langevin chains of M models at once, in the base space.

    .. math:: u' = u - \eta \nabla\big(E_m(x(u)) + \tfrac12 |u|^2\big) + \sqrt{2\eta}\,\xi

    Chains of all members move side by side: a position holds one point a member, (M, D), and the sum of their
    potentials leaves each the gradient of its own.

    Arguments:
        members: energies (M, N) of data a member (M, N, *event).
        decode: data (N, *event) of base points (N, D).
        shape: members M and length D.
        chains: chains a call.
        start: ``prior`` starts every call at prior draws, the short-run chains whose law stays between prior and
            tilt; ``persistent`` goes on from a buffer of ten times as many, one in twenty started anew.
        steps: steps a call.
        step: η.
        like: tensor whose device and type the chains take.
        generator: source of starts and noise (CPU).

    Raises:
        ValueError: an argument lies outside its range.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205;
        Training restricted Boltzmann machines using approximations to the likelihood gradient (Tieleman, 2008)

    Example:
        >>> rng, points = torch.Generator().manual_seed(0), torch.zeros(0)
        >>> chains = Negatives(lambda z: z.square().sum(-1), lambda u: u, (2, 3), chains=4, like=points, generator=rng)
        >>> chains.draw().shape
        torch.Size([2, 4, 3])
    """

    def __init__(
        self,
        members: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        *,
        chains: int,
        start: str = "persistent",
        steps: int = 10,
        step: float = 0.1,
        restart: float = 0.05,
        like: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.members, self.decode, self.shape = members, decode, shape
        self.chains, self.steps = check_int("chains", chains), check_int("steps", steps)
        self.kernel, self.restart = ULA(step), check_number("restart", restart, low=0, high=1)
        self.like, self.generator = like, generator
        persistent = check_choice("start", start, NEGATIVES) == "persistent"
        self.buffer = ReplayBuffer(self._prior(10 * chains)) if persistent else None

    def draw(self) -> Tensor:
        """Move chains and return their data, (M, chains, *event)."""
        start, rows = self._prior(self.chains), None
        if self.buffer is not None:
            rows = self.buffer.pick(self.chains, generator=self.generator)
            anew = torch.rand(self.chains, generator=self.generator) < self.restart
            start = torch.where(anew[:, None, None].to(start.device), start, self.buffer.x[rows])
        run = run_chains(self._potential, start, self.kernel, self.steps, generator=self.generator)
        if self.buffer is not None and rows is not None:
            self.buffer.put(rows, run.state.position)
        with torch.no_grad():
            return self._data(run.state.position)

    def _prior(self, n: int) -> Tensor:
        return torch.randn((n, *self.shape), generator=self.generator).to(self.like)

    def _data(self, u: Tensor) -> Tensor:
        by_member = u.transpose(0, 1)
        return self.decode(by_member.flatten(0, 1)).unflatten(0, by_member.shape[:2])

    def _potential(self, u: Tensor) -> Tensor:
        return self.members(self._data(u)).sum(0) + 0.5 * u.square().flatten(1).sum(1)
