"""Normalising flows, whose codes are exact by the inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.checks import fail

__all__ = ["from_zuko"]


class _Flow(nn.Module):
    """Codes to data by the inverse of a flow's transform."""

    def __init__(self, flow: Any, context: Tensor | None) -> None:
        super().__init__()
        self.flow = flow
        self.register_buffer("context", context)

    def distribution(self) -> Any:
        if not callable(self.flow):
            return self.flow
        return self.flow() if self.context is None else self.flow(self.context)

    def forward(self, z: Tensor) -> Tensor:
        return self.distribution().transform.inv(z)

    def encode(self, x: Tensor) -> Tensor:
        return self.distribution().transform(x)


def from_zuko(flow: Any, context: Tensor | None = None) -> WrappedModel:
    r"""A normalising flow of zuko, or anything with a ``transform`` from data to a standard normal ``base``.

    .. math:: x = f^{-1}(z), \quad z = f(x), \quad z \sim N(0, I)

    Codes of data are exact, so a tilt of codes is the tilt of the data's own density.

    Arguments:
        flow: a module that returns the distribution when called, or the distribution.
        context: what a conditional flow is conditioned on, one vector (C,).

    Raises:
        ValueError: no ``transform`` and ``base``, or a base that is not standard normal.

    References:
        Normalizing Flows for Probabilistic Modeling and Inference (Papamakarios et al., 2021),
        https://arxiv.org/abs/1912.02762

    Example:
        >>> from zuko.flows import NSF
        >>> model = from_zuko(NSF(2, transforms=1, hidden_features=(8,)))
        >>> z = torch.randn(5, 2)
        >>> torch.allclose(model.encode(model.decode(z)), z, atol=1e-4)
        True
    """
    wrapped = _Flow(flow, context).requires_grad_(False).eval()
    try:
        found = wrapped.distribution()
    except Exception as error:
        got, fix = f"{type(error).__name__}: {error}", "pass a flow, and context= where it is conditional"
        raise fail("flow", "a module that gives a distribution when called", got, fix) from error
    if missing := [name for name in ("transform", "base") if not hasattr(found, name)]:
        got = f"{type(found).__name__} without {missing[0]}"
        raise fail("flow", "a distribution with transform and base", got, "pass one, or use WrappedModel")
    probe = torch.linspace(-2, 2, 5)[:, None].expand(-1, *found.base.event_shape)
    normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(probe), 1.0), 1)
    if not torch.allclose(
        found.base.log_prob(probe.to(next(wrapped.parameters(), probe))).cpu(), normal.log_prob(probe)
    ):
        raise fail("flow", "a standard normal base", str(found.base), "put its scale into the transform")
    settings = {} if context is None else {"context": context.flatten().tolist()}
    return WrappedModel(wrapped, int(found.base.event_shape[0]), encoder=wrapped.encode, settings=settings)
