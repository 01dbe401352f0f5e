"""Rows of a set picked at random, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["Picks"]


class Picks:
    """Rows picked again for each of some steps, on a device, only once the step begins.

    Example:
        >>> list(Picks(2, lambda: torch.tensor([3]), "cpu"))
        [tensor([3]), tensor([3])]
    """

    def __init__(self, steps: int, pick: Callable[[], Tensor], device: torch.device | str) -> None:
        self.steps, self.pick, self.device = steps, pick, device
        self.used = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        while self.used < self.steps:
            self.used += 1
            yield self.pick().to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is."""
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from where another was."""
        self.used = state["used"]
