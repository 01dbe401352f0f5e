"""Which schedulers of the diffusers library make an image a function of the starting noise."""

from __future__ import annotations

from typing import Any

from latentebm.checks import fail

__all__ = ["check_deterministic"]

DETERMINISTIC = (
    *("DDIMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler"),
    *("FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"),
)
ONE_STEP = ("CMStochasticIterativeScheduler", "LCMScheduler", "TCDScheduler")  # they draw noise between steps only


def check_deterministic(scheduler: Any, steps: int) -> None:
    """Raise a ValueError unless a scheduler draws no noise of its own in so many steps."""
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    noisy = str(config.get("algorithm_type", "")).startswith("sde") or bool(config.get("stochastic_sampling"))
    if (name in DETERMINISTIC and not noisy) or (name in ONE_STEP and steps == 1):
        return
    got = f"{name}, which draws noise of its own" if scheduler is not None else "None"
    fix = "steps=1" if name in ONE_STEP else "DDIMScheduler.from_config(scheduler.config)"
    raise fail("scheduler", "a deterministic one", got, f"pass for example {fix}")
