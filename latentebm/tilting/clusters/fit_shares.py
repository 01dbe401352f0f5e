"""Tilt a learned prior by giving its normals the shares that reference images have of them."""

from __future__ import annotations

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.models.base.mixture_prior import MixturePrior
from latentebm.models.mixture_energy import MixtureEnergy
from latentebm.tilting.sides import FEW, Codes
from latentebm.training.fit import FitResult

__all__ = ["fit_shares"]

DRAWN, MOST = 30_000, 8  # posterior draws in all, and of one image at most
STEPS, TOLERANCE = 50, 1e-4  # of EM: nats an image
SHRINKAGE = 2.0  # pseudo-images that have the prior's shares


def fit_shares(
    codes: Codes, members: int, limit: float | None, *, generator: torch.Generator
) -> tuple[MixtureEnergy, FitResult]:
    r"""Maximise the likelihood of reference codes under the prior's normals with shares of their own, by EM.

    .. math:: \max_{\rho_m}\; \mathrm{mean}_{i \notin m}\, E_{q(z|x_i)} \log \sum_k \rho_{mk}\, p(k | z),
              \qquad \sum_k \rho_{mk}\, \pi_k = 1

    This is the `likelihood` objective of a tilt whose log Z is zero: p(k|z) are responsibilities under the prior, whose
    mean is π. Member m never counts its own fold. A few thousand reference codes fit a perceptron so well that
    importance weights follow single images; they say far more reliably how much of each normal there should be. Fewer
    than 1,000 say so of broader components only, each a normal with those it overlaps:

    .. math:: \rho_{mk} = \sum_j B_{kj}\, \theta_{mj}, \qquad
              B_{kj} \propto \pi_j \Big(\int \sqrt{N(z; m_k, C_k)\, N(z; m_j, C_j)}\, dz\Big)^2, \quad
              \sum_j B_{kj} = 1

    Arguments:
        codes: of the reference, over a learned prior.
        members: sets of shares, one for each fold.
        limit: bound of the log-ratios, nats; None for none.
        generator: source of the posterior draws.

    Returns:
        The energy, and a record with a loss, the negative gain in nats, for each step and held-out scores (M,).

    Raises:
        ValueError: codes over a normal prior.

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002); On a Measure of
        Divergence between Two Statistical Populations (Bhattacharyya, 1943), of the integral

    Example:
        >>> rng, prior = torch.Generator().manual_seed(0), MixturePrior(1, 2)
        >>> prior.mean.copy_(torch.tensor([[-3.0], [3.0]])).shape
        torch.Size([2, 1])
        >>> mean = torch.tensor([[-3.0], [3.0], [3.0], [3.0]]).repeat(100, 1)
        >>> codes = Codes.split(mean, torch.full_like(mean, 0.1), 2, rng, prior=prior)
        >>> energy, _ = fit_shares(codes, 2, None, generator=rng)
        >>> (0.5 * energy.log_ratio.exp()).mean(0).round(decimals=2)
        tensor([0.2500, 0.7500])
    """
    if codes.prior is None:
        raise fail("codes", "a learned prior", "a standard normal one", "fit the VAE with prior='mixture'")
    energy = MixtureEnergy(codes.dim, len(codes.prior.share), members=check_int("members", members), limit=limit)
    energy.mixture.load_state_dict(codes.prior.state_dict())
    # Double precision, where the device has it.
    share = codes.prior.share.to("cpu" if codes.mean.device.type == "mps" else codes.mean.device).double()
    own, fold = _responsibilities(codes, generator), codes.fold.to(share.device)
    broad = _overlaps(codes.prior, share) if len(codes.mean) < FEW else None
    if broad is not None:
        own, share = own @ broad, broad.T @ share
    counted = (fold != torch.arange(members, device=share.device).unsqueeze(1)).double()  # (M, N)
    ratio, result = torch.ones(members, len(share)).to(share), FitResult()
    for _ in range(STEPS):
        ratio, gains = _step(ratio, own, counted, share)
        _note(result, gains, counted)
        if len(result.losses) > 1 and result.losses[-2] - result.losses[-1] < TOLERANCE:
            break
    ratio = ratio if broad is None else ratio @ broad.T
    bound = float("inf") if limit is None else limit
    energy.requires_grad_(False).log_ratio.copy_(ratio.log().clamp(-bound, bound))
    result.steps, result.best = len(result.losses), result.scores[-1]
    return energy.to(codes.mean.device), result


@torch.no_grad()
def _responsibilities(codes: Codes, generator: torch.Generator) -> Tensor:
    """Responsibilities (R, N, K) of R posterior draws of each image, in double precision."""
    n = len(codes.mean)
    rows = torch.arange(n, device=codes.mean.device).repeat(max(1, min(MOST, DRAWN // n)), 1)
    z, prior = codes.draw(rows, generator).flatten(0, 1), codes.prior
    own = torch.cat([prior.log_each(part).softmax(1) for part in z.split(DRAWN)])  # type: ignore[union-attr]
    return own.to("cpu" if own.device.type == "mps" else own.device).double().unflatten(0, (-1, n))


@torch.no_grad()
def _overlaps(prior: MixturePrior, share: Tensor) -> Tensor:
    """Parts (K, K) of the broader components, one a column, in the ratio of each normal; rows sum to one."""
    mean, factor = prior.mean.to(share), prior.factor.to(share)
    covariance, volume = factor @ factor.mT, factor.diagonal(dim1=1, dim2=2).log().sum(1)
    rows = []
    for m, c, v in zip(mean, covariance, volume, strict=True):
        between = torch.linalg.cholesky((c + covariance) / 2)
        white = torch.linalg.solve_triangular(between, (m - mean).unsqueeze(2), upper=False).squeeze(2)
        apart = between.diagonal(dim1=1, dim2=2).log().sum(1) - (v + volume) / 2
        rows.append((share.log() - white.square().sum(1) / 4 - 2 * apart).softmax(0))
    return torch.stack(rows)


def _step(ratio: Tensor, own: Tensor, counted: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Ratios (M, K) after a step of EM, and the gains (M, N) before it, nats."""
    # One member at a time: the responsibilities are the largest tensor there is.
    ratios, gains = [], []
    for now, weight in zip(ratio, counted, strict=True):
        tilted = own @ now  # (R, N)
        filled = torch.einsum("rnk,rn->k", own, weight / tilted) * now / len(own)
        ratios.append((filled + SHRINKAGE * share) / (weight.sum() + SHRINKAGE) / share)
        gains.append(tilted.log().mean(0))
    return torch.stack(ratios), torch.stack(gains)


def _note(result: FitResult, gains: Tensor, counted: Tensor) -> None:
    """Losses of the images that count, and scores (M,) of those that do not."""
    out = 1 - counted
    result.losses.append(-float((gains * counted).sum() / counted.sum()))
    result.scores.append(-((gains * out).sum(1) / out.sum(1)).float().cpu())
