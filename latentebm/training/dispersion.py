"""How noisy pixels are beside what a Bernoulli likelihood takes for granted."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.rng import draw_seed, permutation

__all__ = ["dispersion"]

ROWS, MOST_NUMBERS = 4_000, 1 << 22  # images of each half, and numbers of double precision in one
STEP = 0.05


def dispersion(images: Tensor, components: int, *, generator: torch.Generator) -> float:
    r"""Variance of pixels around their means, relative to that of Bernoulli pixels of the same means.

    .. math:: \phi = \sum_{ij} (x_{ij} - p_{ij})^2 \Big/ \sum_{ij} p_{ij} (1 - p_{ij}), \qquad 0.05 \le \phi \le 1

    The means p of half of the images are what the first principal components of the other half leave of them, as many
    as a code will have numbers. Black and white pixels come near to 1, grey ones, which hardly vary, far below: their
    Bernoulli log-likelihood is too flat by this factor, and a KL term of weight φ restores the balance of the two.
    It is given to the nearest twentieth, so that it hardly depends on which half is which.

    Arguments:
        images: (N, C, H, W), uint8, at least four.
        components: most principal components.
        generator: halves the images.

    Raises:
        ValueError: fewer than four images.

    References:
        Quasi-likelihood Functions, Generalized Linear Models, and the Gauss-Newton Method (Wedderburn, 1974),
        https://doi.org/10.1093/biomet/61.3.439; Simple and Effective VAE Training with Calibrated Decoders (Rybkin et
        al., 2021), https://arxiv.org/abs/2006.13202

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> grey = (128 + 4 * torch.randn(2000, 1, 4, 4, generator=rng)).byte()
        >>> binary = 255 * (torch.rand(2000, 1, 4, 4, generator=rng) < 0.5).byte()
        >>> dispersion(grey, 1, generator=rng), round(dispersion(binary, 1, generator=rng), 1)
        (0.05, 1.0)
    """
    check_int("components", components)
    if len(images) < 4:
        raise fail("images", "at least 4", len(images), "pass more of them")
    from sklearn.decomposition import PCA  # here, since scikit-learn takes a second

    half = min(len(images) // 2, ROWS, max(MOST_NUMBERS // prod(images.shape[1:]), 2))
    rows = permutation(len(images), generator, "cpu")[: 2 * half]
    known, asked = (images[part].flatten(1).double().cpu().numpy() / 255 for part in rows.split(half))
    if not known.std(0).any():
        return 1.0  # images that are all one have no noise to speak of, and no components
    fitted = PCA(min(components, *known.shape), random_state=draw_seed(generator)).fit(known)
    mean = fitted.inverse_transform(fitted.transform(asked)).clip(0, 1)
    expected = max(float((mean * (1 - mean)).sum()), 1e-12)
    found = float(((asked - mean) ** 2).sum()) / expected
    return min(max(round(round(found / STEP) * STEP, 2), STEP), 1.0)
