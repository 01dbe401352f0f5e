"""What the settings of a `Debiaser` stand for: objects in the place of names, and the check of all of them."""

from __future__ import annotations

from typing import Any

from latentebm import sampling
from latentebm.checks import fail
from latentebm.devices import pick_device
from latentebm.models.networks import make_network
from latentebm.registry import Option, Registry, restored
from latentebm.sampling.named import named_sampler
from latentebm.settings.declaration import settings_of
from latentebm.settings.fields import FLAT, DebiaserSettings, check_alone
from latentebm.tilting.method import TiltMethod
from latentebm.tilting.objectives import OBJECTIVES
from latentebm.tilting.spaces import SPACES

__all__ = ["check_settings", "chosen_method", "chosen_sampler", "components", "kl_weight"]

COMPONENTS = 160  # of a learned prior
POOL_PER_DRAW = 10  # pool of each draw at least, so that few draws repeat another one
# Classes whose objects a config file can hold.
SAMPLING = ("SNIS", "Rejection", "ISIR", "Langevin", "HMC", "NUTS", "ULA", "MALA", "SGLD", "ImproperSGLD", "RandomWalk")
HARD = ("PCN", "PCNL", "EllipticalSlice", "TemperedSMC", "ParallelTempering", "Auto")
KNOWN: dict[str, type] = {kind.__name__: kind for kind in (*OBJECTIVES.kinds.values(), *SPACES.kinds.values())}
KNOWN |= {name: getattr(sampling, name) for name in (*SAMPLING, *HARD)}


def check_settings(settings: DebiaserSettings) -> None:
    """Check every setting of a `Debiaser`.

    Raises:
        ValueError: one lies outside its range, or two do not go together.

    Example:
        >>> check_settings(DebiaserSettings(epochs=0))
        Traceback (most recent call last):
        ValueError: epochs: expected a whole number of at least 1, got 0; pass epochs=1 or more
    """
    check_alone(settings)
    make_network(settings.network, settings.width)
    pick_device(settings.device)
    chosen_method(settings)
    components(settings)
    chosen_sampler(settings, 1)


def chosen_method(settings: DebiaserSettings) -> TiltMethod:
    """The space, objective and energy that settings stand for.

    Raises:
        ValueError: a setting lies outside its range, or two do not go together.

    Example:
        >>> chosen_method(DebiaserSettings(space="data", folds=2)).space.folds
        2
    """
    return TiltMethod(
        space=_chosen(settings, SPACES),
        objective=_chosen(settings, OBJECTIVES),
        gradient_penalty=settings.gradient_penalty,
        build=settings.energy,
    )


def chosen_sampler(settings: DebiaserSettings, n: int) -> sampling.Sampler:
    """The sampler that settings stand for, of `n` draws: a pool that is not set holds at least ten times as many.

    Raises:
        ValueError: an unknown sampler, or a size below one.

    Example:
        >>> chosen_sampler(DebiaserSettings(sampler="mala", langevin_steps=7), 5).n_steps
        7
    """
    pool, sampler = chosen_method(settings).space.pool, restored("sampler", settings.sampler, KNOWN)
    if settings.pool is None:
        pool = max(pool, POOL_PER_DRAW * n)
    return named_sampler(sampler, pool=pool, steps=settings.langevin_steps, n=n)


def components(settings: DebiaserSettings) -> int:
    """Most components of the learned prior; 0 for a standard normal one.

    By default it is learned above three dimensions, and below where its normals' shares are the tilt.

    Raises:
        ValueError: a mixture for an objective that needs the standard normal prior.

    Example:
        >>> components(DebiaserSettings()), components(DebiaserSettings(objective="jensen"))
        (160, 0)
    """
    method = chosen_method(settings)
    objective = method.objective
    if settings.prior == "mixture" and objective.needs_normal:
        name = type(objective).__name__.lower()
        raise fail("prior", f"normal with objective={name}", "'mixture'", "pass objective=likelihood, jensen or nce")
    if settings.prior != "auto":
        return COMPONENTS if settings.prior == "mixture" else 0
    return COMPONENTS if method.by_shares or (settings.latent_dim > FLAT and not objective.needs_normal) else 0


def kl_weight(settings: DebiaserSettings, learn_from: str = "biased", dispersion: float | None = None) -> float:
    """Weight of the KL term in a VAE's training on ``biased`` images, or on ``both`` sets, of some `dispersion`.

    Up to three dimensions it is 1. Above them how sharp images are limits the draws more than how evenly codes fill the
    prior, which a learned prior or a tilt makes up for: it is the dispersion of the pixels, which balances the two
    terms of the objective, or 1/2 where that is unknown. A tilt to a small reference alone can't fill a normal prior:
    it is 1.5 with that and a VAE of the biased images.

    Example:
        >>> ten = DebiaserSettings(latent_dim=10)
        >>> kl_weight(ten, dispersion=0.2), kl_weight(DebiaserSettings(latent_dim=10, prior="normal"))
        (0.2, 1.5)
    """
    if settings.kl_weight is not None:
        return settings.kl_weight
    if settings.latent_dim <= FLAT:
        return 1.0
    if learn_from == "biased" and not components(settings):
        return 1.5
    return 0.5 if dispersion is None else dispersion


def _chosen(settings: DebiaserSettings, choices: Registry) -> Any:
    """The object of one choice, the settings that belong to it as its fields."""
    options = []
    for declared in settings_of(type(settings)):
        choice, _, field = declared.of.partition(".")
        if choice == choices.setting:
            options.append(Option(declared.name, field, getattr(settings, declared.name), declared.default))
    return choices.make(restored(choices.setting, getattr(settings, choices.setting), KNOWN), options)
