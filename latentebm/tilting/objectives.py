"""What a tilt's energy is fitted by: each objective says its loss, its held-out score and its negatives."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.objectives.contrast import contrastive_loss
from latentebm.objectives.tilt_losses import calibrated, jensen_loss, likelihood_loss, nce_loss, posterior_score_loss
from latentebm.registry import Registry
from latentebm.tilting.negatives import STARTS, LearnedNegatives, Negatives
from latentebm.tilting.sides import Codes, Sides

if TYPE_CHECKING:
    from latentebm.models.energies import EnsembleEnergy
    from latentebm.tilting.fit_tilt import TiltRecipe

__all__ = ["NCE", "OBJECTIVES", "Amortized", "Contrastive", "Jensen", "Likelihood", "Objective", "Score"]


class Objective(ABC):
    r"""What an energy is fitted by: subclass it, give `loss`, and pass an instance wherever an objective is named.

    .. math:: \min_E\; \mathrm{loss}\big(E(z_i), E(z_k)\big), \quad z_i \sim q_{ref},\ z_k \sim p_0

    Attributes:
        scores: whether the loss itself tells a better energy from a worse one on held-out images.
        bounded: whether the energy is held within the limit of its space; False where the loss bounds it itself.
        from_clusters: whether a small reference's tilt may start at reweighted clusters of the biased images.
        own_negatives: whether negatives are draws of each member's own model, which needs a Gaussian base.
        recorded: whether steps may be recorded on a GPU: the loss reads nothing back and differs by its draws alone.
        of_posteriors: whether it needs posterior distributions that spread, in place of their draws.

    Example:
        >>> class Square(Objective):
        ...     '''Least-squares density-ratio fitting: e^{-E} against 1.'''
        ...     def loss(self, reference, base):
        ...         return 0.5 * (-2 * base).exp().mean(-1) - (-reference).exp().mean(-1)
        >>> Square().loss(torch.zeros(3, 5), torch.zeros(3, 7)), Square().score(torch.zeros(1, 5), torch.zeros(1, 7))
        (tensor([-0.5000, -0.5000, -0.5000]), tensor([0.]))
    """

    scores: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    from_clusters: ClassVar[bool] = False
    own_negatives: ClassVar[bool] = False
    recorded: ClassVar[bool] = False
    of_posteriors: ClassVar[bool] = False

    @property
    def needs_normal(self) -> bool:
        """Whether the base distribution must be N(0, I): its density counts, not its draws alone."""
        return self.own_negatives or self.of_posteriors

    @abstractmethod
    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """Loss (M,) of every member's energies of reference draws (M, N) and of negatives (M, K), in nats."""

    def score(self, reference: Tensor, base: Tensor) -> Tensor:
        """Held-out score (M,), lower is better: the loss where it `scores`, else the negative gain."""
        return self.loss(reference, base) if self.scores else likelihood_loss(reference, base)

    def check(self, sides: Sides) -> None:
        """Refuse sides that the objective does not suit."""
        codes, name = sides if isinstance(sides, Codes) else None, type(self).__name__.lower()
        if self.of_posteriors and (codes is None or not bool((codes.scale > 0).all())):
            expected = f"another than {name} where there are no posterior draws of codes"
            raise fail("objective", expected, name, "pass objective=likelihood")
        if self.needs_normal and not sides.normal:
            expected = "one that takes the base by its draws alone, where it is not standard normal"
            fix = "pass likelihood, jensen or nce, or fit a VAE with prior='normal'"
            raise fail("objective", expected, name, fix)

    def negatives(
        self, energy: EnsembleEnergy, sides: Sides, recipe: TiltRecipe, generator: torch.Generator
    ) -> Callable[[], Tensor]:
        """What gives the negatives of a step: base draws (K, *event), or each member's own (M, K, *event)."""
        return lambda: sides.base(recipe.base_batch, generator)

    def value(
        self, energy: EnsembleEnergy, sides: Sides, rows: Tensor, x: Tensor, x0: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Loss (M,) of reference draws x (M, N, *event) of the images `rows` (M, N) against negatives x0."""
        return self.loss(energy.members(x), energy.members(x0))

    def transform(self) -> Callable[[Tensor], Tensor] | None:
        """Elementwise map from the fitted energies to the tilt's, or None."""
        return None


@dataclass(frozen=True)
class Likelihood(Objective):
    """The negative gain, log Z estimated from fresh base draws at every step; see `likelihood_loss`."""

    recorded: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    from_clusters: ClassVar[bool] = True

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """Mean reference energy plus log Z."""
        return likelihood_loss(reference, base)


@dataclass(frozen=True)
class Jensen(Objective):
    """Jensen's bound of the gain with an energy penalty; see `jensen_loss`.

    Arguments:
        penalty: λ, in 1/nats; 1/4 is calibrated to first order.
        calibrate: turn the fitted energy into the log-ratio by artanh; see `calibrated`.

    Example:
        >>> Jensen(penalty=0.25, calibrate=True).transform()(torch.zeros(1))
        tensor([0.])
    """

    recorded: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    bounded: ClassVar[bool] = False  # its optimum is bounded by the penalty
    penalty: float = 0.25
    calibrate: bool = False

    def __post_init__(self) -> None:
        check_number("penalty", self.penalty, low=0, open_low=True)

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """Penalised difference of mean energies."""
        return jensen_loss(reference, base, energy_penalty=self.penalty)

    def transform(self) -> Callable[[Tensor], Tensor] | None:
        """The artanh calibration, if asked for."""
        return functools.partial(calibrated, energy_penalty=self.penalty) if self.calibrate else None


@dataclass(frozen=True)
class NCE(Objective):
    """A logistic classifier of reference against base draws; see `nce_loss`."""

    recorded: ClassVar[bool] = True
    scores: ClassVar[bool] = True

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """Logistic loss with logit −E."""
        return nce_loss(reference, base)


class _OwnNegatives(Objective):
    """An objective whose negatives are draws of each member's own model."""

    own_negatives: ClassVar[bool] = True

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """Difference of mean energies: the gradient of the negative gain."""
        return contrastive_loss(reference, base)


@dataclass(frozen=True)
class Contrastive(_OwnNegatives):
    r"""Contrastive divergence: the negatives are Langevin chains of each member's own model.

    .. math:: E_{q_{ref}}[E] - E_{p_E}[E], \text{ whose gradient is that of the negative gain}

    Arguments:
        negatives_from: where chains start: ``persistent`` or ``prior``.
        chains: chains per step; None takes the recipe's.
        steps: steps of each between two of the optimizer's.
        step: their step size.
    """

    negatives_from: Literal["persistent", "prior"] = "persistent"
    chains: int | None = None
    steps: int | None = None
    step: float = 0.05

    def __post_init__(self) -> None:
        check_choice("negatives_from", self.negatives_from, STARTS)
        check_number("step", self.step, low=0, open_low=True)
        for name in ("chains", "steps"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name))

    def negatives(
        self, energy: EnsembleEnergy, sides: Sides, recipe: TiltRecipe, generator: torch.Generator
    ) -> Callable[[], Tensor]:
        """Chains of every member side by side."""
        return Negatives(
            energy.members,
            sides.decode,
            (energy.n_members, sides.dim),
            chains=self.chains or recipe.chains,
            start=self.negatives_from,
            steps=self.steps or recipe.chain_steps,
            step=self.step,
            like=next(energy.parameters()).detach(),
            generator=generator,
        )


@dataclass(frozen=True)
class Amortized(_OwnNegatives):
    """Contrastive against a sampler that learns along with the energy; see `LearnedNegatives`.

    Arguments:
        draws: draws of each member's sampler per step; None takes the recipe's.
        moves: optimizer steps of the sampler between two of the energy's.
        lr: its learning rate.
        noise: standard deviation of its noise, in units of the prior.
    """

    draws: int | None = None
    moves: int = 1
    lr: float = 2e-3
    noise: float = 0.1

    def __post_init__(self) -> None:
        check_int("moves", self.moves)
        check_number("lr", self.lr, low=0, open_low=True)
        check_number("noise", self.noise, low=0, open_low=True)
        if self.draws is not None:
            check_int("draws", self.draws)

    def negatives(
        self, energy: EnsembleEnergy, sides: Sides, recipe: TiltRecipe, generator: torch.Generator
    ) -> Callable[[], Tensor]:
        """Draws of the learned sampler, moved first."""
        return LearnedNegatives(
            energy.members,
            sides.decode,
            (energy.n_members, sides.dim),
            draws=self.draws or recipe.sampler_draws,
            moves=self.moves,
            lr=self.lr,
            noise=self.noise,
            like=next(energy.parameters()).detach(),
            generator=generator,
        )


@dataclass(frozen=True)
class Score(Objective):
    """Denoising score matching of codes whose noise is the posterior's own; see `posterior_score_loss`."""

    of_posteriors: ClassVar[bool] = True

    def loss(self, reference: Tensor, base: Tensor) -> Tensor:
        """The negative gain: energies alone do not hold a score."""
        return likelihood_loss(reference, base)

    def value(
        self, energy: EnsembleEnergy, sides: Sides, rows: Tensor, x: Tensor, x0: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Score-matching loss (M,) of fresh posterior draws of the images `rows`."""
        codes = cast(Codes, sides)
        return posterior_score_loss(energy.members, codes.mean[rows], codes.scale[rows], generator=generator)


OBJECTIVES = Registry(
    "objective",
    {
        "likelihood": Likelihood,
        "jensen": Jensen,
        "nce": NCE,
        "contrastive": Contrastive,
        "score": Score,
        "amortized": Amortized,
    },
    Objective,
)
