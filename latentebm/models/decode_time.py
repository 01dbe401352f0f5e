"""A number of decodes, given as such or as the time they may take."""

from __future__ import annotations

import math
import re
import time

import torch

from latentebm.checks import check_int, fail
from latentebm.models.latent_model import LatentModel, check_model

__all__ = ["check_pool", "decode_seconds", "pool_size"]

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
TRIED, ENOUGH, MOST = 8, 0.5, 4096  # codes first, seconds that tell a rate, and codes at which it is told anyway
LEAST = 100  # decodes of a pool


def pool_size(model: LatentModel, pool: int | str) -> int:
    """Decodes in a pool: a number as it is, ``"90s"``, ``"10min"`` or ``"2h"`` as many as a model makes in that time.

    The rate is that of its first decodes, half a second of them or more; nothing but the number depends on it.

    Raises:
        ValueError: another form, or a time in which fewer than 100 codes are decoded.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> model = WrappedModel(torch.nn.Identity(), 1)
        >>> pool_size(model, 500), pool_size(model, "1h") > 10_000
        (500, True)
    """
    allowed = check_pool(pool)
    if isinstance(allowed, int):
        return allowed
    each = decode_seconds(check_model("model", model))
    found = int(allowed / each)
    if found < LEAST:
        fix = f"allow at least {math.ceil(LEAST * each)} seconds"
        raise fail("pool", f"time for at least {LEAST} decodes", f"{pool}, in which {found} are made", fix)
    return found


def check_pool(pool: int | str) -> int | float:
    """A pool's decodes, a whole number, or the seconds it may take.

    Example:
        >>> check_pool("500"), check_pool("10min")
        (500, 600.0)
    """
    if not isinstance(pool, str) or pool.strip().isdecimal():
        return check_int("pool", int(pool) if isinstance(pool, str) else pool, low=2)
    form = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)\s*", pool)
    if form is None:
        raise fail("pool", "a number of decodes or a time such as 90s, 10min or 2h", repr(pool), "correct it")
    return float(form[1]) * UNITS[form[2]]


@torch.no_grad()
def decode_seconds(model: LatentModel) -> float:
    """Seconds that a model takes to decode one code, among as many at once as take half a second.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> 0 < decode_seconds(WrappedModel(torch.nn.Identity(), 1)) < 1
        True
    """
    size, generator = TRIED, torch.Generator().manual_seed(0)
    like = next(model.parameters(), torch.empty(0)) if isinstance(model, torch.nn.Module) else torch.empty(0)
    while True:
        z = torch.randn(size, model.latent_dim, generator=generator).to(like)
        start = time.monotonic()
        model.decode(z).sum().item()  # waits for a device
        taken = time.monotonic() - start
        if taken > ENOUGH or size >= MOST:
            return max(taken, 1e-9) / size
        size *= 4
