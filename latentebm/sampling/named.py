"""The samplers a run may draw by, under the names its settings give them."""

from __future__ import annotations

from latentebm.checks import check_choice
from latentebm.sampling import HMC, MALA, NUTS, PMC, SNIS, Langevin, Sampler

__all__ = ["SAMPLERS", "named_sampler"]

SAMPLERS = ("snis", "langevin", "mala", "pmc", "hmc", "nuts")
STEP = 0.3  # of MALA in a base space of unit scale; it is exact whatever its step


def named_sampler(name: str, *, pool: int, steps: int, n: int) -> Sampler:
    """The sampler of a name: ``mala`` and ``langevin`` are one, the first being exact for what it is.

    Arguments:
        name: one of `SAMPLERS`.
        pool: base draws of ``snis``.
        steps: steps of each chain of ``mala`` and ``pmc``.
        n: draws that will be asked for, and chains in the buffer of ``pmc``.

    Raises:
        ValueError: another name, or a size below one.

    Example:
        >>> named_sampler("mala", pool=1000, steps=50, n=10).n_steps
        50
    """
    check_choice("sampler", name, SAMPLERS)
    if name == "snis":
        return SNIS(pool=pool)
    if name == "pmc":
        return PMC(MALA(STEP), n_steps=steps, size=n)
    if name in ("hmc", "nuts"):
        return HMC() if name == "hmc" else NUTS()
    return Langevin(kernel=MALA(STEP), n_steps=steps)
