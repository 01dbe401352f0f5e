"""Fit the few-number tilt: clusters from the biased codes, their ratios from the reference."""

from __future__ import annotations

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from latentebm.models.mixture import MixtureEnergy
from latentebm.training.positives import Codes

__all__ = ["fit_mixture"]

PRIOR_DRAWS = 100_000


def fit_mixture(
    biased: Tensor,
    codes: Codes,
    *,
    clusters: int,
    members: int,
    shrinkage: float = 2.0,
    generator: torch.Generator,
) -> MixtureEnergy:
    r"""Learn soft clusters of the biased codes, then how much more of each the reference has than the prior.

    .. math:: \max_\rho\; \mathrm{mean}_i \log \textstyle\sum_k r_k(z_i)\,\rho_k
              \quad\text{with}\quad E_{p_0}\big[\sum_k r_k \rho_k\big] = 1

    The maximum is the likelihood's over this family, whose log Z is 0; expectation maximisation climbs to it, with
    `shrinkage` pseudo-images spread like the prior.

    Arguments:
        biased: posterior draws of the biased images, (N, d).
        codes: posterior laws and folds of the reference; member m never sees fold m.
        clusters: most components; fewer with fewer than ten biased codes each.
        members: ensemble size.
        shrinkage: pseudo-images towards no tilt.
        generator: source of the draws and of the clustering's seed (CPU).

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002)

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> two = torch.cat([torch.randn(900, 1, generator=rng) * .3 - 2, torch.randn(100, 1, generator=rng) * .3 + 2])
        >>> codes = Codes.split(torch.tensor([[-2.0], [2.0]]).repeat(20, 1), torch.full((40, 1), 0.1), 1, rng)
        >>> mixture = fit_mixture(two, codes, clusters=2, members=1, generator=rng)
        >>> mixture(torch.tensor([[2.0]])) < mixture(torch.tensor([[-2.0]])) + 0.2
        tensor([True])
    """
    dim = biased.shape[1]
    k = max(1, min(clusters, len(biased) // 10))
    seed = int(torch.randint(2**31, (1,), generator=generator))
    fitted = GaussianMixture(k, reg_covar=1e-3, max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        # The clusters are a partition to reweight, not an estimate: a few more steps would not change its use.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(biased.double().cpu().numpy())
    mixture = MixtureEnergy(dim, k, members)
    parts = (fitted.weights_, fitted.means_, fitted.precisions_cholesky_)
    mixture.set_components(*(torch.from_numpy(part).float() for part in parts))
    prior = mixture.log_responsibilities(torch.randn(PRIOR_DRAWS, dim, generator=generator)).exp().mean(0)
    device = codes.mean.device
    repeats = max(1, 4000 // len(codes.mean))
    rows = torch.arange(len(codes.mean)).repeat(repeats)
    drawn = mixture.log_responsibilities(codes.draw(rows.to(device), generator).cpu()).exp()
    fold = codes.fold.cpu()[rows]
    for m in range(members):
        keep = drawn[fold != m]
        mixture.log_ratio[m] = _ratios(keep, prior, len(keep) / repeats, shrinkage).log()
    return mixture.to(device)


def _ratios(responsibility: Tensor, prior: Tensor, images: float, shrinkage: float, steps: int = 100) -> Tensor:
    """Ratios ρ that maximise the penalised likelihood: EM over how much of the reference each cluster holds."""
    prior = prior.clamp_min(1e-12)
    share = prior.clone()
    for _ in range(steps):
        posterior = responsibility * (share / prior)
        posterior = posterior / posterior.sum(1, keepdim=True).clamp_min(1e-30)
        share = (posterior.mean(0) * images + shrinkage * prior) / (images + shrinkage)
    return share / prior
