"""Train an energy together with a generator that samples it: no chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_number, check_points, fail
from latentebm.ebm.maximum_likelihood import check_depends
from latentebm.ebm.proposal import Proposal
from latentebm.ebm.sampler_loss import Potential, SamplerLoss, constant
from latentebm.models.sampler_net import SamplerNet
from latentebm.objectives.contrast import contrastive_loss
from latentebm.objectives.tilt_losses import gradient_penalty as slope_penalty
from latentebm.progress import Track, silent
from latentebm.training.fit import FitResult, fit
from latentebm.training.guard import Guard

__all__ = ["fit_amortized", "fit_sampler"]


def fit_amortized(
    energy: nn.Module,
    source: SamplerNet,
    data: Tensor,
    *,
    base: Potential | None = None,
    entropy: str = "variational",
    bound: str = "donsker-varadhan",
    entropy_weight: float = 1.0,
    gradient_penalty: float = 0.0,
    energy_penalty: float = 0.0,
    ratio: int = 1,
    steps: int = 1200,
    batch: int = 256,
    lr: float = 3e-3,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Train an energy against its own learned sampler, both in one step.

    .. math::
        \min_E\; E_{data}[E] - \textstyle\sum_i \bar w_i E(x_i) + \lambda\, E_{data}|\nabla E|^2, \qquad
        \min_G\; E_G[E + U_0] - w H(G)

    The generator's points stand for the energy's own draws after they are redrawn by importance weights, a tenth of a
    wide Gaussian among them (:class:`~latentebm.ebm.proposal.Proposal`): without, a generator that lags behind
    pushes the energy about, and an energy may fall without bound where no point of the generator is. Each of the two
    losses sees the other's module as constant, so that their sum has both gradients and one optimizer makes both
    moves; in between, the generator moves alone. Give the energy a form that is integrable whatever the network does,
    such as a perceptron over a wide parabola, or a `base`; and the generator a straight part about as wide as the data.

    Arguments:
        energy: maps (N, d) to (N,), fitted in place.
        source: the generator, fitted in place.
        data: (N, d).
        base: potential U₀ that the energy tilts, (N, d) to (N,), such as ½|z|² of a latent prior; None for none.
        entropy: ``variational`` (needs noise), ``mutual-information`` or ``scales`` (needs batch normalisation).
        bound: of the mutual information, ``donsker-varadhan`` or ``jensen-shannon``.
        entropy_weight: weight w; 1 for the energy's own law.
        gradient_penalty: λ ≥ 0; it flattens the energy, most where the data are narrow.
        energy_penalty: weight of the squared energies of both sides, which damps the game; in 1/nats.
        ratio: moves of the generator for each of the energy; where the two chase each other, raise it.
        steps: optimizer steps, those of the generator.
        batch: data and draws a step.
        lr: peak learning rate of both, after a warm-up and before a cosine to zero.
        generator: source of batches, codes and noise (CPU).
        track: shows progress.

    Returns:
        The record of the fit; its loss is the sum of a game's two losses, and does not measure progress.

    Raises:
        ValueError: the data are not finite (N, d), the generator makes points of another length or lacks what its
            entropy needs, or an argument is out of range.
        DivergedError: the loss became NaN or infinite.

    References:
        No MCMC for me: amortized sampling for fast and stable training of energy-based models (Grathwohl et al.,
        2021), https://arxiv.org/abs/2010.04230; Maximum entropy generators for energy-based models (Kumar et al.,
        2019), https://arxiv.org/abs/1901.08508

    Example:
        >>> from latentebm.models.energies import EnergyNet
        >>> g = torch.Generator().manual_seed(0)
        >>> data = 1 + 0.5 * torch.randn(1000, 1, generator=g)
        >>> energy, source = EnergyNet(1, hidden=(16,), generator=g), SamplerNet(1, 1, hidden=(16,))
        >>> fit_amortized(energy, source, data, steps=20, batch=64, generator=g).steps
        20
    """
    if data.ndim != 2 or not len(data):
        raise fail("data", "shape (N, d)", tuple(data.shape), "flatten each point")
    check_points("data", data)
    _check_source(source)
    check_depends(energy, data[:256])
    check_number("gradient_penalty", gradient_penalty, low=0)
    check_int("batch", batch)
    check_int("ratio", ratio)
    if source.dim != data.shape[1]:
        want = f"a generator of points (N, {data.shape[1]})"
        raise fail("source", want, f"(N, {source.dim})", f"give it dim={data.shape[1]}")
    learner = SamplerLoss(source, entropy, bound=bound, weight=entropy_weight)
    fixed = constant(energy)
    # Half as wide again as the data; a constant column still gets a width.
    width = (1.5 * data.std(0, correction=0)).clamp_min(source.noise or 1.0)
    proposal = Proposal(source, data.mean(0), width)

    def potential(x: Tensor) -> Tensor:
        return fixed(x) if base is None else fixed(x) + base(x)

    def loss(step: int) -> Tensor:
        own = learner(potential, batch, generator)
        if step % ratio:
            # The energy gets no gradient at all, and the optimizer leaves it where it is.
            return own
        x = data[torch.randint(len(data), (batch,), generator=generator).to(data.device)].requires_grad_()
        on_data = energy(x)
        value = own + contrastive_loss(
            on_data, energy(proposal.draw(potential, batch, generator)), energy_penalty=energy_penalty
        )
        return value + gradient_penalty * slope_penalty(on_data, x) if gradient_penalty else value

    return _fit(nn.ModuleList([energy, learner]), learner, loss, steps, lr, track)


def fit_sampler(
    potential: nn.Module | Potential,
    source: SamplerNet,
    *,
    entropy: str = "variational",
    bound: str = "donsker-varadhan",
    steps: int = 1200,
    batch: int = 256,
    lr: float = 3e-3,
    generator: torch.Generator,
    track: Track = silent,
) -> FitResult:
    r"""Fit a generator to a potential that stays as it is, such as a fitted tilt's.

    .. math:: \min_G\; E_G[U] - H(G) \;\ge\; -\log Z

    Arguments:
        potential: maps (N, d) to (N,), in nats; never changed.
        source: the generator, fitted in place.
        entropy: as in :func:`fit_amortized`.
        bound: as in :func:`fit_amortized`.
        steps: optimizer steps.
        batch: draws a step.
        lr: peak learning rate.
        generator: source of codes and noise (CPU).
        track: shows progress.

    Returns:
        The record of the fit.

    Raises:
        ValueError: the generator lacks what its entropy needs, or an argument is out of range.
        DivergedError: the loss became NaN or infinite.

    References:
        Variational inference with normalizing flows (Rezende and Mohamed, 2015), https://arxiv.org/abs/1505.05770

    Example:
        >>> g, source = torch.Generator().manual_seed(0), SamplerNet(1, 1, hidden=(8,))
        >>> fit_sampler(lambda x: x.square().sum(1) / 2, source, steps=10, generator=g).steps
        10
    """
    check_int("batch", batch)
    _check_source(source)
    if isinstance(potential, nn.Module):
        check_depends(potential, torch.randn(64, source.dim, generator=torch.Generator().manual_seed(0)))
    learner = SamplerLoss(source, entropy, bound=bound)
    frozen = constant(potential) if isinstance(potential, nn.Module) else potential
    return _fit(learner, learner, lambda _: learner(frozen, batch, generator), steps, lr, track)


def _fit(
    module: nn.Module, learner: SamplerLoss, loss: Callable[[int], Tensor], steps: int, lr: float, track: Track
) -> FitResult:
    learner.train()
    settings: dict[str, Any] = {"lr": lr, "schedule": "onecycle", "guard": Guard(module)}
    result = fit(module, loss, range(check_int("steps", steps)), **settings, track=track, description="sampler")
    learner.eval()
    return result


def _check_source(source: SamplerNet) -> None:
    if not isinstance(source, SamplerNet):
        raise fail("source", "a SamplerNet", type(source).__name__, "build one, for example SamplerNet(d, d)")
