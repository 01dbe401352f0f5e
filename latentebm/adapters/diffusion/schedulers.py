"""Which schedulers of the diffusers library make an image a function of the starting noise."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from latentebm.checks import fail

__all__ = ["check_deterministic", "described"]

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
        most = config.get("num_train_timesteps", steps)
        if steps > most:
            raise fail("steps", f"at most the {most} that the network was trained on", steps, "pass fewer")
        return
    got = f"{name}, which draws noise of its own" if scheduler is not None else "None"
    fix = "steps=1" if name in ONE_STEP else "DDIMScheduler.from_config(scheduler.config)"
    raise fail("scheduler", "a deterministic one", got, f"pass for example {fix}")


def described(scheduler: Any) -> dict[str, str]:
    """A scheduler's name and a digest of its configuration, whatever version of the library wrote that."""
    config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    text = json.dumps(config, sort_keys=True, default=str)
    return {"scheduler": type(scheduler).__name__, "scheduler_config": hashlib.sha256(text.encode()).hexdigest()[:12]}
