"""Tilt a learned prior by giving its normals the shares that reference images have of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.models.mixture_energy import MixtureEnergy
from latentebm.rng import permutation
from latentebm.tilting.sides import Codes
from latentebm.training.fit import FitResult

__all__ = ["fit_shares"]

DRAWN, MOST = 30_000, 8  # posterior draws in all, and of one image at most
STEPS, TOLERANCE = 50, 1e-4  # of EM: nats an image
SHRINKAGE = 2.0  # pseudo-images that have the prior's shares
PSEUDO = 100.0  # or those of weighted biased images


def fit_shares(
    codes: Codes,
    members: int,
    limit: float | None,
    *,
    weighted: tuple[Codes, Tensor] | None = None,
    generator: torch.Generator,
) -> tuple[MixtureEnergy, FitResult]:
    r"""Maximise the likelihood of reference codes under the prior's normals with shares of their own, by EM.

    .. math:: \max_{\rho_m}\; \mathrm{mean}_{i \notin m}\, E_{q(z|x_i)} \log \sum_k \rho_{mk}\, p(k | z),
              \qquad \sum_k \rho_{mk}\, \pi_k = 1

    This is the `likelihood` objective of a tilt whose log Z is zero: p(k|z) are responsibilities under the prior, whose
    mean is π. Member m never counts its own fold. A few thousand reference codes fit a perceptron so well that
    importance weights follow single images; they say far more reliably how much of each normal there should be.

    A few hundred don't say that either, but how much there should be of each of twenty clusters: biased images weighted
    so, `weighted`, say the rest. They stand for 100 more reference images, whatever their number.

    Arguments:
        codes: of the reference, over a learned prior.
        members: sets of shares, one for each fold.
        limit: bound of the log-ratios, nats; None for none.
        weighted: codes of N biased images, and their weights (M, N) for each member, such as those of
            :func:`latentebm.tilting.clusters.reweight.cluster_weights`.
        generator: source of the posterior draws.

    Returns:
        The energy, and a record with a loss, the negative gain in nats, for each step and held-out scores (M,).

    Raises:
        ValueError: codes over a normal prior.

    References:
        Adjusting the Outputs of a Classifier to New a Priori Probabilities (Saerens et al., 2002)

    Example:
        >>> from latentebm.models.base.mixture_prior import MixturePrior
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
    counted = (fold != torch.arange(members, device=share.device).unsqueeze(1)).double()  # (M, N)
    towards, pseudo = share.expand(members, -1), SHRINKAGE
    if weighted is not None:
        towards, pseudo = _shares_of(*weighted, share, generator), PSEUDO
    result, steps = FitResult(), list(_maximised(own, counted, share, towards, pseudo))
    for _, gains in steps:
        _note(result, gains, counted)
    bound = float("inf") if limit is None else limit
    energy.requires_grad_(False).log_ratio.copy_(steps[-1][0].log().clamp(-bound, bound))
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


def _shares_of(biased: Codes, weight: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """Shares (M, K) that weighted biased images have of the normals."""
    rows = permutation(len(biased.mean), generator, biased.mean.device)[:DRAWN]
    some = dataclasses.replace(biased, mean=biased.mean[rows], scale=biased.scale[rows], fold=biased.fold[rows])
    counted = weight[:, rows.to(weight.device)].to(share.device).double()
    own = _responsibilities(some, generator)
    *_, (ratio, _) = _maximised(own, counted, share, share.expand(len(weight), -1), SHRINKAGE)
    return ratio * share


def _maximised(
    own: Tensor, counted: Tensor, share: Tensor, towards: Tensor, pseudo: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ratios (M, K) after each step of EM from the shares `towards` (M, K), and the gains (M, N) before it, nats."""
    ratio, losses = towards / share, []
    for _ in range(STEPS):
        ratio, gains = _step(ratio, own, counted, share, pseudo * towards)
        yield ratio, gains
        losses.append(-float((gains * counted).sum() / counted.sum()))
        if len(losses) > 1 and losses[-2] - losses[-1] < TOLERANCE:
            return


def _step(ratio: Tensor, own: Tensor, counted: Tensor, share: Tensor, pseudo: Tensor) -> tuple[Tensor, Tensor]:
    """Ratios (M, K) after a step of EM, and the gains (M, N) before it, nats."""
    # One member at a time: the responsibilities are the largest tensor there is.
    ratios, gains = [], []
    for now, weight, more in zip(ratio, counted, pseudo, strict=True):
        tilted = own @ now  # (R, N)
        filled = torch.einsum("rnk,rn->k", own, weight / tilted) * now / len(own)
        ratios.append((filled + more) / (weight.sum() + more.sum()) / share)
        gains.append(tilted.log().mean(0))
    return torch.stack(ratios), torch.stack(gains)


def _note(result: FitResult, gains: Tensor, counted: Tensor) -> None:
    """Losses of the images that count, and scores (M,) of those that do not."""
    out = 1 - counted
    result.losses.append(-float((gains * counted).sum() / counted.sum()))
    result.scores.append(-((gains * out).sum(1) / out.sum(1)).float().cpu())
