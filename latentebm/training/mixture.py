"""Start a tilt from what the many biased codes know, so that a small reference need only say a few numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from latentebm.models.energy import EnergyNet
from latentebm.models.mixture import MixtureEnergy
from latentebm.training.energy import TiltRecipe, fit_energy
from latentebm.training.positives import Codes

__all__ = ["fit_aggregate", "fit_mixture"]

LIMIT = 4.0  # nats, as for the perceptrons that refine the start
PRIOR_DRAWS = 10_000
CLUSTERED = 5_000  # biased codes that the clusters are learned from
RAKINGS = 60


def fit_aggregate(biased: Tensor, *, steps: int = 500, generator: torch.Generator) -> EnergyNet:
    r"""Learn how the codes of all biased images together differ from the prior.

    .. math:: E_{agg} \approx -\log \frac{q_{biased}(z)}{p_0(z)}, \qquad
              q_{biased} = \mathrm{mean}_i\, q(z | x_i)

    A VAE's prior also holds places that no image is coded to; biased images, of which there are many, show where.

    Arguments:
        biased: posterior draws of the biased images, (N, d), at least two.
        steps: optimizer steps.
        generator: source of the draws (CPU).

    References:
        A Contrastive Learning Approach for Training Variational Autoencoder Priors (Aneja et al., 2021),
        https://arxiv.org/abs/2010.02917

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> energy = fit_aggregate(torch.randn(500, 1, generator=rng) * 0.2 + 1, steps=50, generator=rng)
        >>> bool(energy(torch.tensor([[1.0]])) < energy(torch.tensor([[-1.0]])))
        True
    """
    energy = EnergyNet(biased.shape[1], limit=LIMIT, generator=generator).to(biased.device)
    codes = Codes.split(biased, torch.zeros_like(biased), 1, generator)
    fit_energy(energy, codes, TiltRecipe(steps=steps, patience=None, every=100), generator=generator)
    return energy.requires_grad_(False)


def fit_mixture(
    biased: Tensor,
    codes: Codes,
    start: EnergyNet,
    reread: Callable[[Tensor], Tensor],
    *,
    clusters: int,
    members: int,
    shrinkage: float = 2.0,
    generator: torch.Generator,
) -> MixtureEnergy:
    r"""Learn soft clusters of the biased codes, then how much more of each the reference has than the start.

    .. math:: E_{z \sim p_\rho}[r_k(\tilde z)] = \mathrm{mean}_i\, r_k(\tilde z_i), \qquad
              p_\rho(z) \propto \textstyle\sum_k r_k(z)\,\rho_k\; e^{-E_{agg}(z)}\, p_0(z)

    Here :math:`\tilde z` is a code decoded and encoded again, on both sides: what counts is in which cluster an image
    ends up, not which code it was decoded from. The ratios ρ are raked, cluster by cluster in turn, with `shrinkage`
    pseudo-images spread like the start.

    Arguments:
        biased: posterior draws of the biased images, (N, d).
        codes: posterior laws and folds of the reference; member m never sees fold m.
        start: the tilt E_agg to go on from, as by `fit_aggregate`.
        reread: decodes codes (N, d) and encodes the images again, to (N, d).
        clusters: most components; fewer with fewer than ten biased codes each.
        members: ensemble size.
        shrinkage: pseudo-images towards the start.
        generator: source of the draws and of the clustering's seed (CPU).

    References:
        On a Least Squares Adjustment of a Sampled Frequency Table When the Expected Marginal Totals are Known (Deming
        and Stephan, 1940)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> two = torch.cat([torch.randn(900, 1, generator=rng) * .3 - 2, torch.randn(100, 1, generator=rng) * .3 + 2])
        >>> codes = Codes.split(torch.tensor([[-2.0], [2.0]]).repeat(20, 1), torch.full((40, 1), 0.1), 1, rng)
        >>> start = fit_aggregate(two, steps=100, generator=rng)
        >>> mixture = fit_mixture(two, codes, start, lambda z: z, clusters=2, members=1, generator=rng)
        >>> (mixture(torch.tensor([[2.0]])) < mixture(torch.tensor([[-2.0]])) - 1).item()
        True
    """
    mixture, device = _clusters(biased, clusters, members, generator), biased.device
    prior = torch.randn(PRIOR_DRAWS, biased.shape[1], generator=generator).to(device)
    with torch.no_grad():
        weight = (-start(prior)).softmax(0)
    own, seen = (mixture.log_responsibilities(z).exp() for z in (prior, reread(prior)))
    repeats = max(1, 4000 // len(codes.mean))
    rows = torch.arange(len(codes.mean), device=device).repeat(repeats)
    wanted = mixture.log_responsibilities(reread(codes.draw(rows, generator))).exp()
    for m in range(members):
        keep = wanted[codes.fold[rows] != m]
        images = len(keep) / repeats
        target = (keep.mean(0) * images + shrinkage * (weight @ seen)) / (images + shrinkage)
        mixture.log_ratio[m] = _raked(own, seen, weight, target).log()
    return mixture


def _clusters(biased: Tensor, clusters: int, members: int, generator: torch.Generator) -> MixtureEnergy:
    k = max(1, min(clusters, len(biased) // 10))
    rows = torch.randperm(len(biased), generator=generator)[:CLUSTERED].to(biased.device)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    fitted = GaussianMixture(k, reg_covar=1e-3, max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        # The clusters are a partition to reweight, not an estimate: a few more steps would not change its use.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(biased[rows].double().cpu().numpy())
    mixture = MixtureEnergy(biased.shape[1], k, members)
    parts = (fitted.weights_, fitted.means_, fitted.precisions_cholesky_)
    mixture.set_components(*(torch.from_numpy(part).float() for part in parts))
    return mixture.to(biased.device)


def _raked(own: Tensor, seen: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Ratios ρ whose reweighted draws are seen in the clusters as often as `target` says."""
    ratio = torch.ones_like(target)
    for _ in range(RAKINGS):
        drawn = weight * (own @ ratio)
        ratio = ratio * target / (drawn @ seen / drawn.sum()).clamp_min(1e-6)
        # A cluster that hardly any draw is seen in could take any ratio at all.
        ratio = (ratio / (weight @ own @ ratio)).clamp(1e-2, 1e2)
    return ratio
