"""Small random changes of images, so that a few of them can be shown many times without being learned by heart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_choice, check_number, fail
from latentebm.rng import uniform

__all__ = ["AUGMENTATIONS", "augmented", "random_affine"]

TURN, SCALE, SHEAR, SHIFT = 0.2, 0.1, 0.15, 0.05  # radians, relative, relative, share of the image's side
SLIGHT = 0.65  # of these: draws of clothes are nearer to copies at 0.4, and less balanced at 1


def random_affine(x: Tensor, *, strength: float = 1.0, generator: torch.Generator) -> Tensor:
    r"""Turn, scale, shear and shift each image a little, by its own draw; what comes in from outside is black.

    .. math:: x'(p) = x(A p + b), \qquad A = \begin{pmatrix} 1 + s_1 & a + h \\ -a & 1 + s_2 \end{pmatrix}

    With `strength` 1 the turn a is within ±0.2 radians, scales s within ±10 %, the shear h within ±15 % and the
    shift b within ±5 % of the image's side, all uniform and independent.

    Arguments:
        x: images (N, C, H, W) in [0, 1].
        strength: factor of all ranges, at least 0.
        generator: source of the draws.

    Returns:
        (N, C, H, W) in [0, 1].

    Raises:
        ValueError: images of another shape, or a negative strength.

    References:
        Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis (Simard et al., 2003),
        https://doi.org/10.1109/ICDAR.2003.1227801

    Example:
        >>> x = torch.zeros(1, 1, 9, 9)
        >>> x[0, 0, 4, 4] = 1
        >>> moved = random_affine(x, generator=torch.Generator().manual_seed(0))
        >>> moved.shape, bool(moved.max() <= 1), bool((moved != x).any())
        (torch.Size([1, 1, 9, 9]), True, True)
    """
    if x.ndim != 4:
        raise fail("x", "images of shape (N, C, H, W)", tuple(x.shape), "add the missing axes")
    check_number("strength", strength, low=0)
    u = strength * (2 * uniform((len(x), 6), generator, x) - 1)
    turn, shear = TURN * u[:, 0], SHEAR * u[:, 1]
    rows = [1 + SCALE * u[:, 2], turn + shear, 2 * SHIFT * u[:, 4], -turn, 1 + SCALE * u[:, 3], 2 * SHIFT * u[:, 5]]
    grid = F.affine_grid(torch.stack(rows, 1).unflatten(1, (2, 3)), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False).clamp(0, 1)


def _slight(x: Tensor, *, generator: torch.Generator) -> Tensor:
    return random_affine(x, strength=SLIGHT, generator=generator)


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "none": lambda x, *, generator: x,
    "slight": _slight,
    "affine": random_affine,
}


def augmented(x: Tensor, how: str, *, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each changed as the augmentation of a name says.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> x = torch.rand(2, 1, 4, 4)
        >>> torch.equal(augmented(x, "none", generator=torch.Generator()), x)
        True
    """
    return AUGMENTATIONS[check_choice("augment", how, AUGMENTATIONS)](x, generator=generator)
