"""What ``latentebm tilt`` is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from latentebm.checks import check_choice, check_int, fail
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.decode_time import check_pool
from latentebm.sampling import SNIS, Sampler
from latentebm.sampling.importance.two_stage import TwoStage
from latentebm.sampling.importance.weights import BASE_DRAWS

__all__ = ["TiltSettings", "by_name", "found_at", "packages_of"]

NAMED = ("pixels", "pca", "classifier", "torchvision", "timm")  # features of a name, not of a function
SAMPLERS = ("snis", "two-stage")
HELD, PROPOSED = 2**27, 2**32  # numbers of codes held at once, and of all that are weighed undecoded in two stages
AHEAD = 50  # codes weighed undecoded for each that is decoded, at most


@dataclass(frozen=True, kw_only=True)
class TiltSettings:
    """What ``latentebm tilt`` does.

    Attributes:
        model: ``package.module:build`` of a function that gives the model.
        reference: images, a folder or an .npz; None where shares are given.
        features: a name that `named_features` knows, or ``package.module:function``; None for the model's own codes.
        attributes: ``package.module:function``, one value per item each.
        targets: wanted shares of each, ``yes:.5,no:.5``.
        pool: draws of the model that are weighted, or the time to decode them, such as ``10min``.
        sampler: ``snis`` weighs as many base draws; ``two-stage`` decodes as many that a cheap energy proposes.
        spool: whether decoded data are kept on disk until the run is done, from which it goes on after a kill; None
            where decoding the pool takes longer than a minute.
        samples: draws that are written.
        seed: of the whole run.
        out: the run folder.
        overwrite: whether an earlier run may be replaced.
        tensorboard: whether event files for it are written, too.
    """

    model: str
    reference: str | None = None
    features: str | None = None
    attributes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    pool: int | str = 20_000
    sampler: str = "snis"
    spool: bool | None = None
    samples: int = 1000
    seed: int = 0
    out: str = "runs/tilt"
    overwrite: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_int("samples", self.samples)
        if isinstance(decodes := check_pool(self.pool), int):
            object.__setattr__(self, "pool", decodes)
        check_choice("sampler", self.sampler, SAMPLERS)
        if (self.reference is None) == (not self.targets):
            got = "both" if self.targets else "neither"
            raise fail("reference", "a reference, or a target of each attribute", got, "pass one of the two")
        if self.targets and len(self.targets) != len(self.attributes):
            got = f"{len(self.targets)} targets for {len(self.attributes)} attributes"
            raise fail("target", "one for each attribute", got, "pass as many, in the same order")

    def plain(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def sampler_of(self, tilt: Tilt, n: int) -> Sampler:
        """The sampler of a tilt, for n draws from a pool of a known number."""
        pool = max(int(self.pool), n)
        if self.sampler == "snis":
            held = HELD // tilt.dim  # long codes go in smaller chunks
            return SNIS(pool=pool, chunk=held if held < BASE_DRAWS else None)
        proposed = max(pool, min(AHEAD * pool, 1_000_000, PROPOSED // tilt.dim))
        return TwoStage(decodes=pool, pilot=max(20, min(1000, pool // 5)), pool=proposed)


def found_at(name: str, path: str) -> Any:
    """What the user names as ``package.module:name``, looked for in the working folder as well.

    Example:
        >>> found_at("model", "math:sqrt")(4)
        2.0
    """
    module, colon, local = path.partition(":")
    if not colon:
        raise fail(name, "package.module:name", path, "put a colon between module and name")
    sys.path[:0] = [] if "" in sys.path else [""]
    try:
        found = getattr(importlib.import_module(module), local, None)
    except ImportError as error:
        raise fail(name, "a module that can be imported", f"{module}: {error}", "correct it, or install it") from error
    if not callable(found):
        raise fail(name, "a function there", f"none at {path}", "correct the name")
    return found


def by_name(features: str | None) -> bool:
    """Whether features are those of a name, or the model's codes, rather than a function at ``package.module:name``.

    Example:
        >>> by_name("pixels:8"), by_name("faces:brightness")
        (True, False)
    """
    return features is None or features.partition(":")[0] in NAMED


def packages_of(settings: Mapping[str, Any]) -> list[str]:
    """Packages whose functions a tilt uses, and its model's.

    Example:
        >>> packages_of({"model": "faces.gan:build", "features": "pixels:8", "attributes": ["light:bright"]})
        ['faces', 'light']
    """
    features = [] if by_name(settings["features"]) else [settings["features"]]
    paths = [settings["model"], *features, *settings["attributes"]]
    return sorted({path.partition(":")[0].partition(".")[0] for path in paths})
