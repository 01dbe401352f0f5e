"""How a module's parameters move: the settings of the optimizer, which every recipe shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from latentebm.checks import check_choice, check_int, check_number

__all__ = ["Optimisation", "Schedule"]

Schedule = Literal["constant", "cosine", "onecycle"]


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    r"""Settings of AdamW; every recipe is one, with defaults and settings of its own.

    .. math:: \theta \leftarrow \theta - \eta_t\, \mathrm{AdamW}(\nabla_\theta\, \mathrm{loss}(\mathrm{batch}_t))

    In every recipe whole numbers are at least 1, others at least 0. The learning rate is ``constant``, falls to zero by
    a ``cosine``, or goes up for a tenth of the steps first (``onecycle``).

    References:
        Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2019), https://arxiv.org/abs/1711.05101

    Example:
        >>> rate = Optimisation(schedule="onecycle").multiplier(100)
        >>> [round(rate(step), 2) for step in (0, 9, 55, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """

    lr: float = 1e-3  # peak learning rate
    schedule: Schedule = "constant"
    clip: float | None = None  # bound of the gradient's norm
    weight_decay: float = 0.0  # decoupled from the gradient
    average: float = 0.0  # decay of a moving average of the parameters, which the fit ends with; 0 for the last ones
    recorded: bool = False  # on a GPU, steps that can be as one CUDA graph: faster; its balance is not yet measured

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if kind is int:
                check_int(name, getattr(self, name))
            elif kind is float:
                check_number(name, getattr(self, name), low=0)
            elif get_origin(kind) is Literal:
                check_choice(name, getattr(self, name), get_args(kind))
        check_number("lr", self.lr, low=0, open_low=True)
        if self.clip is not None:
            check_number("clip", self.clip, low=0, open_low=True)
        check_number("average", self.average, low=0, high=0.99999)

    def optimizer(self, parameters: Sequence[nn.Parameter], *, recorded: bool = False) -> torch.optim.Optimizer:
        """AdamW over the parameters at the peak learning rate, if asked one whose steps can be `recorded` on a GPU."""
        settings: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "foreach": True}
        if all(p.is_cuda for p in parameters):
            settings |= {"foreach": None, "fused": True}
        if recorded:
            settings |= {"lr": torch.tensor(self.lr, device=parameters[0].device), "capturable": True}
        return torch.optim.AdamW(parameters, **settings)

    def multiplier(self, steps: int) -> Callable[[int], float]:
        """The learning rate at each step of `steps`, as a share of its peak."""
        if self.schedule == "constant":
            return lambda step: 1.0
        warm = max(1, steps // 10) if self.schedule == "onecycle" else 0

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            done = min((step - warm) / max(1, steps - warm), 1.0)
            return 0.5 * (1 + math.cos(math.pi * done))

        return rate
