"""Normalising flows, whose codes are exact by the inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.adapters.probing import is_normal
from latentebm.checks import fail

__all__ = ["from_zuko"]


class _Flow(nn.Module):
    """Codes to data by the inverse of a flow's transform."""

    def __init__(self, flow: Any, context: Tensor | None) -> None:
        super().__init__()
        self.flow = flow
        self.register_buffer("context", context)

    def distribution(self) -> Any:
        given = [] if self.context is None else [self.context]
        return self.flow(*given) if callable(self.flow) else self.flow

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
        ValueError: no ``transform`` and ``base``, a base that is not standard normal, or a context of another length.

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
    if context is not None and context.numel() != context.shape[-1]:
        raise fail("context", "one vector (C,)", tuple(context.shape), "pass one row of it, such as context[0]")
    wrapped = _Flow(flow, context).requires_grad_(False).eval()
    like = next(wrapped.parameters(), torch.empty(0))
    try:
        found = wrapped.distribution()
        if missing := [name for name in ("transform", "base") if not hasattr(found, name)]:
            got = f"{type(found).__name__} without {missing[0]}"
            raise fail("flow", "a distribution with transform and base", got, "pass one, or use WrappedModel")
        if not is_normal(found.base, like):
            raise fail("flow", "a standard normal base", found.base, "put a map from normal codes into its transform")
        found.transform.inv(like.new_zeros(2, *found.base.event_shape))
    except (RuntimeError, AttributeError, TypeError) as error:  # what a flow raises without the context that it needs
        given = "no context" if context is None else f"a context of {context.numel()} numbers"
        fix = "pass a flow, and context= with as many numbers as a conditional one was made for"
        raise fail("flow", f"one for {given}", f"{type(error).__name__}: {error}", fix) from error
    settings = {} if context is None else {"context": context.flatten().tolist()}
    return WrappedModel(wrapped, int(found.base.event_shape[0]), encoder=wrapped.encode, settings=settings)
