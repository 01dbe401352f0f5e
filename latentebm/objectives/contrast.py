"""Energies of data against energies of the model's draws: the loss of every contrastive method, and its penalties."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_number, fail
from latentebm.rng import uniform

__all__ = ["contrastive_loss", "gradient_penalty", "interpolates", "jem_loss"]


def contrastive_loss(positive: Tensor, negative: Tensor, *, weight: float = 1.0, energy_penalty: float = 0.0) -> Tensor:
    r"""Mean energy of the data less that of the model's draws, plus a penalty that holds the energy's scale.

    .. math:: w \left[\overline{E(x)} - \overline{E(\tilde x)}\right]
        + \lambda \left[\overline{E(x)^2} + \overline{E(\tilde x)^2}\right]

    With :math:`\tilde x` from :math:`p_E` and held fixed, the gradient of the first bracket is that of the negative
    log-likelihood, :math:`E_{data}[\nabla E] - E_{p_E}[\nabla E]`. Its value is no likelihood: it tends to zero as the
    draws become those of the data.

    Energies, in nats, are (…, N) of the data and (…, K) of draws, at least one of each; leading dimensions are ensemble
    members. Neither w nor λ is negative.

    References:
        Training products of experts by minimizing contrastive divergence (Hinton, 2002),
        https://doi.org/10.1162/089976602760128018; for the penalty, Implicit generation and modeling with energy based
        models (Du and Mordatch, 2019), https://arxiv.org/abs/1903.08689

    Example:
        >>> contrastive_loss(torch.tensor([-1.0, 0.0]), torch.tensor([2.0]), energy_penalty=0.1)
        tensor(-2.0500)
    """
    check_number("weight", weight, low=0)
    check_number("energy_penalty", energy_penalty, low=0)
    for name, energies in (("positive", positive), ("negative", negative)):
        if not energies.ndim or not energies.shape[-1]:
            raise fail(name, "energies (…, N) with N ≥ 1", tuple(energies.shape), "pass at least one energy")
    loss = weight * (positive.mean(-1) - negative.mean(-1))
    if energy_penalty:
        loss = loss + energy_penalty * (positive.square().mean(-1) + negative.square().mean(-1))
    return loss


def jem_loss(
    logits: Tensor, y: Tensor, energy_data: Tensor, energy_model: Tensor, *, weight: float = 1.0, penalty: float = 0.0
) -> Tensor:
    r"""Cross-entropy of the labels plus the contrast of energies between data and model draws.

    .. math:: -\overline{\log p(y \mid x)} + w \left[\overline{E(x)} - \overline{E(\tilde x)}\right]
        + \lambda \left[\overline{E(x)^2} + \overline{E(\tilde x)^2}\right]

    Of the data there are logits (N, C), labels (N,) of 0 … C − 1 and energies (N,) in nats, of draws energies (M,).

    Example:
        >>> jem_loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([-1.0]), torch.tensor([2.0]))
        tensor(-2.3069)
    """
    check_number("penalty", penalty, low=0)
    if logits.ndim != 2 or not len(logits) == len(y) == len(energy_data):
        got = (tuple(logits.shape), tuple(y.shape), tuple(energy_data.shape))
        raise fail("logits", "shapes (N, C), (N,) and (N,)", got, "pass the same batch to all three")
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise fail("y", f"labels of 0 … {logits.shape[1] - 1}", f"{int(y.min())} … {int(y.max())}", "index from 0")
    contrast = contrastive_loss(energy_data, energy_model, weight=weight, energy_penalty=penalty)
    return F.cross_entropy(logits, y) + contrast


def gradient_penalty(energy: Tensor, points: Tensor, *, center: float = 0.0) -> Tensor:
    r"""Mean squared distance of the energy's gradient norm from `center`.

    .. math:: \mathrm{mean}_i\, (\|\nabla E(z_i)\| - c)^2

    The energies (…, N) are computed from points (…, N, *event) with ``requires_grad``, such as `interpolates`. A center
    of 0 shrinks the gradient; 1 is the penalty of WGAN-GP.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028

    Example:
        >>> z = torch.randn(5, 2, requires_grad=True)
        >>> gradient_penalty((3 * z).sum(1), z).item()
        18.0
    """
    (grad,) = torch.autograd.grad(energy.sum(), points, create_graph=True)
    grad = grad.flatten(energy.ndim)
    if center == 0.0:
        # |∇E|² itself: the norm's own derivative is undefined where the gradient vanishes.
        return grad.square().sum(-1).mean(-1)
    return (grad.norm(dim=-1) - center).square().mean(-1)


def interpolates(x: Tensor, other: Tensor, *, generator: torch.Generator, lead: int = 1) -> Tensor:
    """Points drawn uniformly on the lines from x, (N, *event), or (M, N, *event) with ``lead=2``, to others."""
    share = uniform((*x.shape[:lead], *[1] * (x.ndim - lead)), generator, x)
    return (share * x + (1 - share) * other).requires_grad_()
