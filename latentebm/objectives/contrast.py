"""Energies of data against energies of the model's draws: the one loss of every contrastive method."""

from __future__ import annotations

from torch import Tensor

from latentebm.checks import check_number, fail

__all__ = ["contrastive_loss"]


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
        weight: w ≥ 0.
        energy_penalty: λ ≥ 0, in 1/nats.

    Returns:
        The loss, (…), in nats.

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
