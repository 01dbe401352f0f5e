"""Fit a learned prior to the codes of what a VAE was trained on."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from latentebm import processes
from latentebm.checks import check_int
from latentebm.data.batches import minibatches
from latentebm.data.stored import StoredImages
from latentebm.models.base.mixture_prior import MixturePrior
from latentebm.models.vae import VAE
from latentebm.rng import draw_seed, normal, weighted_rows
from latentebm.training.fit_mixture import fit_mixture
from latentebm.training.mixed_in import MixedIn

__all__ = ["fit_prior"]

IMAGES, BATCH = 16_000, 256  # whose codes the mixture is fitted to, and how many are encoded at once
STEPS, TOLERANCE = 40, 1e-2  # of EM: nats a code


class Detail(NamedTuple):
    """How closely the mixture follows the codes."""

    draws: int  # codes of each image
    images: int  # of a component at least
    floor: float  # added to every variance, in units of the standard normal prior


# Images that count more than once, such as a small reference in every batch, would get normals of their own: copies.
FINE, COARSE = Detail(draws=4, images=100, floor=1e-3), Detail(draws=1, images=400, floor=1e-2)


def fit_prior(
    vae: VAE,
    images: Tensor | StoredImages,
    *,
    components: int,
    weights: Tensor | None = None,
    mixed: MixedIn | None = None,
    generator: torch.Generator,
) -> MixturePrior:
    r"""Fit a mixture of normals to the codes of images by EM, and give it to the VAE as its prior.

    .. math:: \max_{\pi, m, L}\; \mathrm{mean}_i\, w_i \log \sum_k \pi_k\, N(z_i; m_k, L_k L_k^\top),
              \quad z_i \sim q(z|x_i)

    One pass over at most 16,000 images, as training saw them: `mixed` takes its share, weights w count. A component has
    at least 100 images, and ten for each number of a code, and each image four codes; where images are mixed in or
    weighted, 400 and one. In a process group rank 0 fits and all get its mixture.

    Arguments:
        vae: trained; its `prior` is replaced.
        images: (N, C, H, W), uint8, in memory or on disk.
        components: most components.
        weights: (N,), of the images; None for equal ones.
        mixed: images that take a share of every batch.
        generator: source of order, posterior draws and starts.

    Returns:
        The prior.

    References:
        Diagnosing and Enhancing VAE Models (Dai and Wipf, 2019), https://arxiv.org/abs/1903.05789

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> vae = VAE((1, 4, 4), 2, width=8)
        >>> images = (255 * torch.rand(250, 1, 4, 4, generator=rng)).byte()
        >>> fit_prior(vae, images, components=160, generator=rng).share.shape, vae.config["components"]
        (torch.Size([2]), 2)
    """
    detail = FINE if weights is None and mixed is None else COARSE
    own: dict[str, Any] = {"weights": weights, "mixed": mixed, "generator": generator}
    found = processes.on_main(lambda: _mixture(_codes(vae, images, detail.draws, **own), components, detail, generator))
    prior = cast(MixturePrior, processes.from_main(found)).to(next(vae.parameters()).device)
    vae.set_prior(prior)
    return prior


@torch.no_grad()
def _codes(
    vae: VAE,
    images: Tensor | StoredImages,
    draws: int,
    *,
    weights: Tensor | None,
    mixed: MixedIn | None,
    generator: torch.Generator,
) -> Tensor:
    """Posterior draws (N · draws, d) of images as training saw them, on the CPU."""
    device, n = next(vae.parameters()).device, min(IMAGES, len(images))
    sizes: dict[str, Any] = {"batch_size": BATCH, "epochs": 1, "generator": generator, "device": device}
    weight = torch.ones(len(images)) if weights is None else weights
    codes, counts = [], []
    for x, w in islice(minibatches(images, weight, **sizes), math.ceil(n / BATCH)):
        x = x.float() / 255
        if mixed is not None:
            x, w = mixed.into(x, w, generator)
        mean, scale = (moment.repeat(draws, 1) for moment in vae.moments(x))
        codes.append((mean + scale * normal(mean.shape, generator, mean)).cpu())
        counts.append(w.cpu())
    drawn, count = torch.cat(codes), torch.cat(counts)
    return drawn if weights is None else drawn[weighted_rows(count, len(drawn), generator)]


def _mixture(codes: Tensor, components: int, detail: Detail, generator: torch.Generator) -> MixturePrior:
    from sklearn.cluster import kmeans_plusplus  # here, since scikit-learn takes a second

    least = detail.draws * max(detail.images, 10 * codes.shape[1])  # codes of a component
    count = max(1, min(check_int("components", components), len(codes) // least))
    x = codes.double()
    _, rows = kmeans_plusplus(x.numpy(), count, random_state=draw_seed(generator))
    first = torch.zeros(len(x), count).double()
    first[torch.from_numpy(rows).long(), torch.arange(count)] = 1
    return fit_mixture(x, first, floor=detail.floor, steps=STEPS, tolerance=TOLERANCE).float()
