"""Draws of every member's own model for contrastive training: from Langevin chains, or from a learned sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_number
from latentebm.ebm.learned_sampler import Proposal
from latentebm.ebm.sampler_loss import SamplerLoss
from latentebm.models.sampler_net import SamplerNet
from latentebm.rng import normal
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.kernels import ULA
from latentebm.sampling.mcmc.persistent import ReplayBuffer

__all__ = ["STARTS", "LearnedNegatives", "Negatives"]

STARTS = ("persistent", "prior")


class _Members(ABC):
    """Data of M models' base points, and their potentials, whichever axis holds the members."""

    def __init__(self, members: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]) -> None:
        self.members, self.decode = members, decode

    def _data(self, by_member: Tensor) -> Tensor:
        """Data (M, N, *event) of base points (M, N, D)."""
        return self.decode(by_member.flatten(0, 1)).unflatten(0, by_member.shape[:2])

    def __call__(self) -> Tensor:
        return self.draw()

    @abstractmethod
    def draw(self) -> Tensor:
        """Fresh data (M, N, *event), N of each member."""


class Negatives(_Members):
    r"""Langevin chains of M models at once, in the base space.

    .. math:: u' = u - \eta \nabla\big(E_m(x(u)) + \tfrac12 |u|^2\big) + \sqrt{2\eta}\,\xi

    Chains of all members move side by side: a position holds one point per member, (M, D), and the sum of their
    potentials leaves each the gradient of its own.

    Arguments:
        members: energies (M, N) of data per member (M, N, *event).
        decode: data (N, *event) of base points (N, D).
        shape: members M and length D.
        chains: chains per call.
        start: ``prior`` starts every call at prior draws, short-run chains whose distribution stays between prior
            and tilt; ``persistent`` goes on from a buffer of ten times as many, one in twenty started again.
        steps: steps per call.
        step: η.
        restart: probability that a persistent chain starts again.
        like: tensor whose device and type the chains take.
        generator: source of starts and noise.

    Raises:
        ValueError: an argument lies outside its range.

    References:
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
        super().__init__(members, decode)
        self.shape = shape
        self.chains, self.steps = check_int("chains", chains), check_int("steps", steps)
        self.kernel, self.restart = ULA(step), check_number("restart", restart, low=0, high=1)
        self.like, self.generator = like, generator
        persistent = check_choice("start", start, STARTS) == "persistent"
        self.buffer = ReplayBuffer(self._prior(10 * chains, generator)) if persistent else None

    def draw(self) -> Tensor:
        """Move chains and return their data, (M, chains, *event)."""
        if self.buffer is None:
            u = self._move(self._prior(self.chains, self.generator))
        else:
            known: dict[str, Any] = {"base": self._prior, "restart": self.restart, "generator": self.generator}
            moved = self.buffer.step(self.chains, lambda c: c._replace(x=self._move(c.x)), **known)
            u = moved.chains.x
        with torch.no_grad():
            return self._data(u.transpose(0, 1))

    def state_dict(self) -> dict[str, Any]:
        """Where the chains stand, for a checkpoint."""
        return {} if self.buffer is None else {"x": self.buffer.x}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where chains stood."""
        if self.buffer is not None:
            self.buffer.x.copy_(state["x"])

    def _move(self, u: Tensor) -> Tensor:
        run = run_chains(self._potential, u, self.kernel, self.steps, generator=self.generator, partial=False)
        return run.state.position

    def _prior(self, n: int, generator: torch.Generator) -> Tensor:
        return normal((n, *self.shape), generator, self.like)

    def _potential(self, u: Tensor) -> Tensor:
        return self.members(self._data(u.transpose(0, 1))).sum(0) + 0.5 * u.square().flatten(1).sum(1)


class LearnedNegatives(_Members):
    r"""Draws of M models at once by one sampler that learns along, in the base space.

    .. math:: \min_G\; \sum_m E_{G_m}\big[E_m(x(u)) + \tfrac12 |u|^2\big] - H(G_m)

    The sampler starts at the prior, and follows the energies by some optimizer steps per call.

    Arguments:
        members: energies (M, N) of data per member (M, N, *event).
        decode: data (N, *event) of base points (N, D).
        shape: members M and length D.
        draws: draws of each member per call.
        moves: optimizer steps of the generator a call.
        lr: its learning rate.
        noise: standard deviation of its noise, below 1.
        like: tensor whose device and type the draws take.
        generator: source of codes, noise and first weights.

    Raises:
        ValueError: an argument lies outside its range.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230

    Example:
        >>> settings = {"draws": 4, "like": torch.zeros(0), "generator": torch.Generator().manual_seed(0)}
        >>> LearnedNegatives(lambda z: z.square().sum(-1), lambda u: u, (2, 3), **settings).draw().shape
        torch.Size([2, 4, 3])
    """

    def __init__(
        self,
        members: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        *,
        draws: int,
        moves: int = 1,
        lr: float = 2e-3,
        noise: float = 0.1,
        like: Tensor,
        generator: torch.Generator,
    ) -> None:
        n_members, dim = shape
        super().__init__(members, decode)
        self.generator = generator
        self.rows = n_members * check_int("draws", draws)
        self.moves = check_int("moves", moves)
        check_number("noise", noise, low=0, high=0.99, open_low=True)
        straight = (1 - noise**2) ** 0.5
        source = SamplerNet(dim, dim, noise=noise, straight=straight, members=n_members, generator=generator)
        self.loss = SamplerLoss(source.to(like), "variational", generator=generator)
        self.proposal = Proposal(source, torch.zeros(dim).to(like), torch.ones(dim).to(like))
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=lr, betas=(0.5, 0.99), foreach=True)

    def draw(self) -> Tensor:
        """Move the sampler and return its draws' data, (M, draws, *event)."""
        parameters = list(self.loss.parameters())
        for _ in range(self.moves):
            self.optimizer.zero_grad(set_to_none=True)
            # Towards the sampler alone: the energies are fitted elsewhere.
            self.loss(self._potential, self.rows, self.generator).backward(inputs=parameters)
            self.optimizer.step()
        with torch.no_grad():
            return self._data(self._by_member(self.proposal.draw(self._potential, self.rows, self.generator)))

    def state_dict(self) -> dict[str, Any]:
        """The sampler and its optimizer, for a checkpoint."""
        return {"loss": self.loss.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from another's state."""
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _by_member(self, u: Tensor) -> Tensor:
        return u.unflatten(0, (-1, self.loss.source.members)).transpose(0, 1)

    def _potential(self, u: Tensor) -> Tensor:
        energies = self.members(self._data(self._by_member(u)))
        return energies.transpose(0, 1).flatten() + 0.5 * u.square().sum(1)
