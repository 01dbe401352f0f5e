"""Train an energy together with a network that samples it: no chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from latentebm.checks import check_event, check_int, check_number, fail
from latentebm.devices import beside
from latentebm.ebm.check_energy import check_energy
from latentebm.ebm.sampler_loss import Entropy, Potential, SamplerLoss, constant
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives.contrast import contrastive_loss, gradient_penalty
from latentebm.objectives.sampler_entropy import Bound, sampler_score
from latentebm.progress import Track, silent
from latentebm.rng import integers, normal, stream, weighted_rows
from latentebm.training.fit import FitResult, fit
from latentebm.training.keep import Guard
from latentebm.training.logs import Log
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["AmortizedRecipe", "Proposal", "SamplerRecipe", "fit_amortized", "fit_sampler"]


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
    """How an energy and its sampler are fitted together, beside the settings of `SamplerRecipe`."""

    gradient_penalty: float = 0.0  # λ, which flattens the energy, most where the data are narrow
    energy_penalty: float = 0.0  # weight of the squared energies of both sides, which damps the game; in 1/nats
    ratio: int = 1  # moves of the sampler for each of the energy; raise it where the two oscillate


@dataclass(frozen=True)
class Proposal:
    r"""A learned sampler and a small share of a wide Gaussian, redrawn by their weights.

    .. math:: w_i \propto \frac{e^{-U(x_i)}}{(1 - \alpha)\, q(x_i) + \alpha\, r(x_i)}, \qquad
              r = N(\mathrm{loc}, \mathrm{scale}^2)

    A sampler misses modes that none of its points is near: there a fitted energy may fall without bound, unseen by any
    draw. The wide share α, of centre `loc` and standard deviations `scale` (d,), finds such holes, and bounds every
    weight; it has at least one draw.
    The sampler's density comes from :func:`~latentebm.objectives.sampler_entropy.sampler_score`, at wide points with
    the code of the nearest of its own; a sampler without noise has none, and its points are returned unweighted.

    References:
        Weighted average importance sampling and defensive mixture distributions (Hesterberg, 1995),
        https://doi.org/10.1080/00401706.1995.10484303

    Example:
        >>> g, source = torch.Generator().manual_seed(0), SamplerNet(2, 2, straight=1.0)
        >>> draws = Proposal(source, torch.zeros(2), torch.ones(2)).draw(lambda x: 2 * x.square().sum(1), 9999, g)
        >>> abs(draws.std().item() - 0.5) < 0.02
        True
    """

    source: SamplerNet
    loc: Tensor
    scale: Tensor
    share: float = 0.1

    def __post_init__(self) -> None:
        check_number("share", self.share, low=0, high=0.99, open_low=True)

    @torch.no_grad()
    def draw(self, potential: Callable[[Tensor], Tensor], n: int, generator: torch.Generator) -> Tensor:
        """Draw (n, d) points of the density e^{−U}; rows take turns among members, each redrawn among its own."""
        members, source, was_training = self.source.members, self.source, self.source.training
        if check_int("n", n) < 2 * members or n % members:
            want = f"a multiple of {members} members, at least {2 * members}"
            raise fail("n", want, n, f"pass n={2 * members}")
        source.eval()
        wide = members * max(1, round(self.share * n / members)) if source.noise else 0
        z = normal((n - wide, source.latent_dim), generator, self.loc)
        noise = normal((n, source.dim), generator, self.loc)
        clean = check_event("source", source(z), tuple(self.loc.shape))
        x = clean + source.noise * noise[wide:]
        if wide:
            far = self.loc + self.scale * noise[:wide]
            codes = torch.cat([z, self._nearest(far, clean, z)])
            x = torch.cat([x, far])
            log_weight = -potential(x) - self._log_density(x, codes, wide / n, generator)
            x = self._redrawn(x, log_weight, generator)
        source.train(was_training)
        return x

    def _log_density(self, x: Tensor, codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
        own = sampler_score(self.source, x, codes, noise=self.source.noise, generator=generator).log_density
        # Unvalidated: a diverged sampler makes NaN points, which its own loss reports.
        wide = Normal(self.loc, self.scale, validate_args=False).log_prob(x).sum(1)
        return torch.logaddexp(own + math.log1p(-share), wide + math.log(share))

    def _nearest(self, far: Tensor, clean: Tensor, z: Tensor) -> Tensor:
        return self._taken(z, torch.cdist(self._by_member(far), self._by_member(clean)).argmin(2))

    def _redrawn(self, x: Tensor, log_weight: Tensor, generator: torch.Generator) -> Tensor:
        share = torch.softmax(self._by_member(log_weight), 1)
        # At most about √K copies in K: a single point must not dominate a step. NaN is left to the loss to report.
        share = share.nan_to_num(1.0).clamp(min=1e-12, max=share.shape[1] ** -0.5)
        return self._taken(x, weighted_rows(share, share.shape[1], generator))

    def _taken(self, x: Tensor, rows: Tensor) -> Tensor:
        return self._by_member(x).take_along_dim(rows[..., None], 1).transpose(0, 1).flatten(0, 1)

    def _by_member(self, rows: Tensor) -> Tensor:
        """Rows that take turns, (M, K, …)."""
        return rows.unflatten(0, (-1, self.source.members)).transpose(0, 1)


def fit_amortized(
    energy: nn.Module,
    source: SamplerNet,
    data: Tensor,
    recipe: AmortizedRecipe | None = None,
    *,
    base: Potential | None = None,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Train an energy against its own learned sampler, both in one step.

    .. math::
        \min_E\; E_{data}[E] - \textstyle\sum_i \bar w_i E(x_i) + \lambda\, E_{data}|\nabla E|^2, \qquad
        \min_G\; E_G[E + U_0] - w H(G)

    The sampler's points are redrawn by importance weights (:class:`Proposal`), so that one that lags behind does not
    mislead the energy. Each of the two losses treats the other's module as constant: their sum has both gradients, and
    one optimizer makes both moves. Give the energy a form that is integrable whatever the network does, such as a
    perceptron over a wide parabola, or a `base`; and the sampler a straight part as wide as the data.

    Energy and sampler are fitted in place to data (N, d). The `base` is the potential U₀ that the energy tilts, (N, d)
    to (N,), such as ½|z|² of a latent prior. The record's loss, the sum of a game's two, does not measure progress.

    Raises:
        ValueError: the data are not finite (N, d), the energy is not one number per point that depends on it, or the
            sampler makes other points or lacks what its entropy needs.
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
    data = beside(energy, data)
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

    return _fit(nn.ModuleList([energy, learner]), learner, loss, recipe, track, log, state=[generator], data=[data])


def fit_sampler(
    potential: nn.Module | Potential,
    source: SamplerNet,
    recipe: SamplerRecipe | None = None,
    *,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
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
        check_energy(potential, normal((64, source.dim), stream(0), next(source.parameters())))
    fixed = constant(potential) if isinstance(potential, nn.Module) else potential
    learner = recipe.loss(source, generator)
    weights = list(potential.parameters()) if isinstance(potential, nn.Module) else []
    own = {"state": [generator], "data": weights}
    return _fit(learner, learner, lambda _: learner(fixed, recipe.batch, generator), recipe, track, log, **own)


def _fit(
    module: nn.Module, learner: SamplerLoss, loss: Callable[[int], Tensor], recipe: SamplerRecipe, track: Track,
    log: Log | None, **known: Any,
) -> FitResult:  # fmt: skip
    learner.train()
    known |= {"guard": Guard(module), "track": track, "log": log, "description": "sampler"}
    result = fit(module, loss, range(recipe.steps), recipe, **known)
    learner.eval()
    return result


def _check_source(source: SamplerNet, dim: int | None = None) -> None:
    if not isinstance(source, SamplerNet):
        raise fail("source", "a SamplerNet", type(source).__name__, "build one, for example SamplerNet(d, d)")
    if dim is not None and source.dim != dim:
        raise fail("source", f"a sampler of points (N, {dim})", f"(N, {source.dim})", f"give it dim={dim}")
