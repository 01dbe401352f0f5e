"""Energies of data against energies of the model's draws: the one loss of every contrastive method."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_number, fail

__all__ = ["contrastive_loss", "jem_loss"]


def contrastive_loss(positive: Tensor, negative: Tensor, *, weight: float = 1.0, energy_penalty: float = 0.0) -> Tensor:
    r"""Mean energy of the data less that of the model's draws, plus a penalty that holds the energy's scale.

    .. math:: w \left[\overline{E(x)} - \overline{E(\tilde x)}\right]
        + \lambda \left[\overline{E(x)^2} + \overline{E(\tilde x)^2}\right]

    With :math:`\tilde x` from :math:`p_E` and held fixed, the gradient of the first bracket is that of the negative
    log-likelihood, :math:`E_{data}[\nabla E] - E_{p_E}[\nabla E]`. Its value is no likelihood: it tends to zero as the
    draws become those of the data.

    Arguments:
        positive: energies of the data, (…, N), in nats; leading dimensions are ensemble members.
        negative: energies of draws of the model, (…, K).

    Raises:
        ValueError: w or λ is negative, or there are no data or no draws.

    References:
        Training products of experts by minimizing contrastive divergence (Hinton, 2002),
        https://doi.org/10.1162/089976602760128018; for the penalty, Implicit generation and modeling with energy based
        models (Du and Mordatch, 2019), https://arxiv.org/abs/1903.08689

    Example:
        >>> import torch
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

    Arguments:
        logits: of the data, (N, C).
        y: labels of the data, (N,), of 0 … C − 1.
        energy_data: energies of the data, (N,), in nats.
        energy_model: energies of draws of the model, (M,).

    Raises:
        ValueError: the lengths do not match, a label is out of range or a weight is negative.

    References:
        Your classifier is secretly an energy based model and you should treat it like one (Grathwohl et al., 2020),
        https://arxiv.org/abs/1912.03263

    Example:
        >>> import torch
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
