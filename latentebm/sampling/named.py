"""The samplers a run may draw by: names are shortcuts for objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from latentebm.checks import check_choice, check_int, fail
from latentebm.sampling import HMC, MALA, NUTS, PMC, SNIS, Auto, Langevin, Sampler

__all__ = ["SAMPLERS", "named_sampler"]

STEP = 0.3  # of MALA in a base space of unit scale; it is exact whatever its step
STARTS = 10  # base draws that a chain's start is resampled from: a twentieth of the work of its steps


SAMPLERS: dict[str, Callable[[int, int, int], Sampler]] = {
    "snis": lambda pool, steps, n: SNIS(pool=pool),
    "langevin": lambda pool, steps, n: Langevin(kernel=MALA(STEP), n_steps=steps, starts=STARTS),
    "mala": lambda pool, steps, n: Langevin(kernel=MALA(STEP), n_steps=steps, starts=STARTS),
    "pmc": lambda pool, steps, n: PMC(MALA(STEP), n_steps=steps, size=n, starts=STARTS),
    "hmc": lambda pool, steps, n: HMC(),
    "nuts": lambda pool, steps, n: NUTS(),
    "auto": lambda pool, steps, n: Auto(pool=pool),
}


def named_sampler(sampler: Any, *, pool: int, steps: int, n: int) -> Sampler:
    """The sampler of a name; anything with ``draw(target, n, *, generator, track)`` stands for itself.

    ``snis`` and ``auto`` take the pool's size, ``mala`` (which ``langevin`` is too) and ``pmc`` each chain's steps; the
    buffer of ``pmc`` holds as many chains as draws will be asked for, n. Chains start at base draws resampled by their
    weights, one of ten.

    Example:
        >>> named_sampler("mala", pool=1000, steps=50, n=10).n_steps, named_sampler(SNIS(pool=9), pool=1, steps=1, n=1)
        (50, SNIS(pool=9, chunk=None, resampling='multinomial'))
        >>> class Prior:
        ...     '''Draws of the base distribution, untilted.'''
        ...     def draw(self, target, n, *, generator, track=None):
        ...         u = target.sample_base(n, generator=generator)
        ...         return Draws(target.decode(u), u, -target.energy(u), {"sampler": "prior"})
        >>> import torch
        >>> from latentebm import Debiaser, Draws
        >>> images = torch.rand(32, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> model = Debiaser(width=16, epochs=1, folds=2, tilt_steps=2, sampler=Prior()).fit(images, images[:9])
        >>> model.sample(3).diagnostics
        {'sampler': 'prior'}
    """
    if isinstance(sampler, str):
        check_int("langevin_steps", steps)
        return SAMPLERS[check_choice("sampler", sampler, SAMPLERS)](pool, steps, n)
    if not callable(getattr(sampler, "draw", None)):
        expected = f"one of {', '.join(SAMPLERS)}, or an object with a draw method"
        raise fail("sampler", expected, repr(sampler), "pass for example sampler=snis")
    return sampler
