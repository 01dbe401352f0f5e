"""Train an energy together with a network that samples it: no chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.ebm.check_energy import check_energy
from latentebm.ebm.proposal import Proposal
from latentebm.ebm.sampler_loss import Entropy, Potential, SamplerLoss, constant
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives.contrast import contrastive_loss, gradient_penalty
from latentebm.objectives.sampler_entropy import Bound
from latentebm.progress import Track, silent
from latentebm.rng import integers
from latentebm.training.fit import FitResult, fit
from latentebm.training.keep import Guard
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["AmortizedRecipe", "SamplerRecipe", "fit_amortized", "fit_sampler"]


@dataclass(frozen=True, kw_only=True)
class SamplerRecipe(Optimisation):
    """How a sampler is fitted to a potential; the optimizer's settings are `Optimisation`'s.

    The entropy, its bound and its weight are those of :class:`~latentebm.ebm.sampler_loss.SamplerLoss`; each step takes
    `batch` draws.
    """

    entropy: Entropy = "variational"
    bound: Bound = "donsker-varadhan"
    entropy_weight: float = 1.0
    steps: int = 1200
    batch: int = 256
    lr: float = 3e-3
    schedule: Schedule = "onecycle"

    def loss(self, source: SamplerNet, generator: torch.Generator) -> SamplerLoss:
        """The sampler's loss, and the critic that it may need."""
        return SamplerLoss(source, self.entropy, bound=self.bound, weight=self.entropy_weight, generator=generator)


@dataclass(frozen=True, kw_only=True)
class AmortizedRecipe(SamplerRecipe):
    """How an energy and its sampler are fitted together, beside the settings of `SamplerRecipe`.

    Attributes:
        gradient_penalty: λ, which flattens the energy, most where the data are narrow.
        energy_penalty: weight of the squared energies of both sides, which damps the game; in 1/nats.
        ratio: moves of the sampler for each of the energy; raise it where the two oscillate.
    """

    gradient_penalty: float = 0.0
    energy_penalty: float = 0.0
    ratio: int = 1


def fit_amortized(
    energy: nn.Module,
    source: SamplerNet,
    data: Tensor,
    recipe: AmortizedRecipe | None = None,
    *,
    base: Potential | None = None,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Train an energy against its own learned sampler, both in one step.

    .. math::
        \min_E\; E_{data}[E] - \textstyle\sum_i \bar w_i E(x_i) + \lambda\, E_{data}|\nabla E|^2, \qquad
        \min_G\; E_G[E + U_0] - w H(G)

    The sampler's points are redrawn by importance weights (:class:`~latentebm.ebm.proposal.Proposal`), so that one that
    lags behind does not mislead the energy. Each of the two losses treats the other's module as constant: their sum has
    both gradients, and one optimizer makes both moves. Give the energy a form that is integrable whatever the network
    does, such as a perceptron over a wide parabola, or a `base`; and the sampler a straight part as wide as the data.

    Energy and sampler are fitted in place to data (N, d). The `base` is the potential U₀ that the energy tilts, (N, d)
    to (N,), such as ½|z|² of a latent prior. The record's loss, the sum of a game's two, does not measure progress.

    Raises:
        ValueError: the data are not finite (N, d), the sampler makes other points or lacks what its entropy needs, or
            the energy is not one number per point that depends on the point.
        DivergedError: the loss became NaN or infinite.

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> g = torch.Generator().manual_seed(0)
        >>> data = 1 + 0.5 * torch.randn(1000, 1, generator=g)
        >>> energy, source = EnergyNet(1, hidden=(16,), generator=g), SamplerNet(1, 1, hidden=(16,), generator=g)
        >>> _ = fit_amortized(energy, source, data, AmortizedRecipe(steps=100, batch=64), generator=g)
        >>> 0 < source.sample(1000, generator=g).mean().item() < 1.5
        True
    """
    recipe = recipe or AmortizedRecipe()
    check_energy(energy, data, flat=True)
    _check_source(source, data.shape[1])
    learner, fixed = recipe.loss(source, generator), constant(energy)
    # Half as wide again as the data; a constant column still gets a width.
    width = (1.5 * data.std(0, correction=0)).clamp_min(source.noise or 1.0)
    proposal = Proposal(source, data.mean(0), width)

    def potential(x: Tensor) -> Tensor:
        return fixed(x) if base is None else fixed(x) + base(x)

    def energy_loss() -> Tensor:
        x = data[integers(len(data), (recipe.batch,), generator, data.device)].requires_grad_()
        on_data, on_draws = energy(x), energy(proposal.draw(potential, recipe.batch, generator))
        value = contrastive_loss(on_data, on_draws, energy_penalty=recipe.energy_penalty)
        return value + recipe.gradient_penalty * gradient_penalty(on_data, x) if recipe.gradient_penalty else value

    def loss(step: int) -> Tensor:
        own = learner(potential, recipe.batch, generator)
        # In between, the energy gets no gradient at all, and the optimizer leaves it where it is.
        return own if step % recipe.ratio else own + energy_loss()

    return _fit(nn.ModuleList([energy, learner]), learner, loss, recipe, track)


def fit_sampler(
    potential: nn.Module | Potential,
    source: SamplerNet,
    recipe: SamplerRecipe | None = None,
    *,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Fit a sampler in place to a potential U, (N, d) to (N,) in nats, that stays as it is, such as a fitted tilt's.

    .. math:: \min_G\; E_G[U] - H(G) \;\ge\; -\log Z

    Example:
        >>> g, source = torch.Generator().manual_seed(0), SamplerNet(1, 1, hidden=(), noise=0.5, straight=1.0)
        >>> _ = fit_sampler(lambda x: 2 * x.square().sum(1), source, SamplerRecipe(steps=300, lr=0.03), generator=g)
        >>> abs(source.sample(1000, generator=g).std().item() - 0.5) < 0.05
        True
    """
    recipe = recipe or SamplerRecipe()
    _check_source(source)
    if isinstance(potential, nn.Module):
        check_energy(potential, torch.randn(64, source.dim, generator=torch.Generator().manual_seed(0)))
    fixed = constant(potential) if isinstance(potential, nn.Module) else potential
    learner = recipe.loss(source, generator)
    return _fit(learner, learner, lambda _: learner(fixed, recipe.batch, generator), recipe, track)


def _fit(
    module: nn.Module, learner: SamplerLoss, loss: Callable[[int], Tensor], recipe: SamplerRecipe, track: Track
) -> FitResult:
    learner.train()
    result = fit(module, loss, range(recipe.steps), recipe, guard=Guard(module), track=track, description="sampler")
    learner.eval()
    return result


def _check_source(source: SamplerNet, dim: int | None = None) -> None:
    if not isinstance(source, SamplerNet):
        raise fail("source", "a SamplerNet", type(source).__name__, "build one, for example SamplerNet(d, d)")
    if dim is not None and source.dim != dim:
        raise fail("source", f"a sampler of points (N, {dim})", f"(N, {source.dim})", f"give it dim={dim}")
