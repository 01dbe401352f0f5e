"""Joint energy-based model: a classifier trained to tell classes apart and to give its data low energy."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import check_number, fail
from latentebm.objectives.contrast import contrastive_loss

__all__ = ["jem_loss"]


def jem_loss(
    logits: Tensor, y: Tensor, energy_data: Tensor, energy_model: Tensor, *, weight: float = 1.0, penalty: float = 0.0
) -> Tensor:
    r"""Cross-entropy of the labels plus the contrast of energies between data and model draws.

    .. math:: -\overline{\log p(y \mid x)} + w \left[\overline{E(x)} - \overline{E(\tilde x)}\right]
        + \lambda \left[\overline{E(x)^2} + \overline{E(\tilde x)^2}\right]

    Arguments:
        logits: the classifier's logits of the data, (N, C).
        y: labels of the data, (N,), of 0 … C − 1.
        energy_data: energies of the data, (N,).
        energy_model: energies of draws of the model, (M,).
        weight: weight w of the contrast.
        penalty: weight λ of the squared energies, which holds their free constant.

    Returns:
        The loss, a scalar in nats.

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
