"""The job of ``latentebm tilt``: somebody's model, a reference or wanted shares, and a run folder."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentebm._version import __version__
from latentebm.checks import check_int, fail
from latentebm.chunks import in_chunks
from latentebm.data.images import load_images
from latentebm.disk.folders import check_out, run_folder
from latentebm.disk.manifest import add_files, as_written
from latentebm.files import write_atomic, write_json, write_text
from latentebm.models.features import Attribute
from latentebm.models.latent_model import LatentModel, check_model
from latentebm.models.storage.tilt_folder import load_tilt, tilt_config
from latentebm.models.tilts import LatentTilt
from latentebm.plots import plot_image_grid
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.sampling import SNIS, Draws
from latentebm.tilting.any_model import tilt_generator
from latentebm.tilting.attributes import tilt_attributes
from latentebm.training.checkpoint import checkpoints
from latentebm.workflow.run import save_samples
from latentebm.workflow.tilt_card import tilt_card, tilt_page

__all__ = ["TiltSettings", "found_at", "is_tilt_run", "redraw", "run_tilt"]

SHOWN, Z = 64, 1.96


@dataclass(frozen=True, kw_only=True)
class TiltSettings:
    """What ``latentebm tilt`` does.

    Attributes:
        model: ``package.module:build`` of a function that gives the model.
        reference: images, a folder or an .npz; None where shares are given.
        features: a name that `named_features` knows, or ``package.module:function``; None for the model's own codes.
        attributes: ``package.module:function``, one value per item each.
        targets: wanted shares of each, ``yes:.5,no:.5``.
        pool: draws of the model that are weighted.
        samples: draws that are written.
        seed: of the whole run.
        out: the run folder.
        overwrite: whether an earlier run may be replaced.
    """

    model: str
    reference: str | None = None
    features: str | None = None
    attributes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    pool: int = 20_000
    samples: int = 1000
    seed: int = 0
    out: str = "runs/tilt"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("pool", "samples"):
            check_int(name, getattr(self, name))
        if (self.reference is None) == (not self.targets):
            got = "both" if self.targets else "neither"
            raise fail("reference", "a reference, or a target of each attribute", got, "pass one of the two")
        if self.targets and len(self.targets) != len(self.attributes):
            got = f"{len(self.targets)} targets for {len(self.attributes)} attributes"
            raise fail("target", "one for each attribute", got, "pass as many, in the same order")


def run_tilt(settings: TiltSettings, *, track: Track = silent) -> Path:
    """Fit the tilt, draw, and write tilt, draws, figures, report and model card into a run folder.

    A run that was stopped or killed goes on, where the same is asked for again, with the fits that are done.

    Raises:
        ValueError: settings, a model, features or data that are not as described; nothing is written then.
        FileNotFoundError: data that are not there.
    """
    out = check_out(settings.out, settings.overwrite)
    job = {"latentebm": __version__, "tilt": {**_plain(settings), "out": "", "overwrite": False}}
    with run_folder(out, settings.overwrite, job=job) as place, checkpoints(place.kept, keep=True):
        model = check_model("model", found_at("model", settings.model)())
        chosen = _attributes(settings)
        rng = stream(settings.seed)
        tilt = _fitted(settings, model, chosen, rng, track)
        _write(place.new, settings, tilt, chosen, rng, track)
    return out


def is_tilt_run(folder: Path | str) -> bool:
    """Whether a folder holds a run of ``latentebm tilt``.

    Example:
        >>> is_tilt_run("nowhere")
        False
    """
    try:
        return "tilt_run" in tilt_config(folder)
    except (ValueError, FileNotFoundError):
        return False


def redraw(run: Path | str, n: int, *, strength: float = 1.0, seed: int | None = None, track: Track = silent) -> Draws:
    """Draw from a run of ``latentebm tilt`` again, its model built as it was; images in [0, 1].

    Raises:
        ValueError: the model is not the one that was tilted.
    """
    with as_written(Path(run) / "config.json"):
        asked = TiltSettings(**tilt_config(run)["tilt_run"])
        named = [asked.model, asked.features or "", *asked.attributes]
        trusted = {name.partition(".")[0].partition(":")[0] for name in named if ":" in name}
    tilt = load_tilt(run, found_at("model", asked.model)(), trusted=trusted)
    rng = stream(asked.seed if seed is None else seed, 1)
    draws = SNIS(pool=max(asked.pool, n)).draw(tilt * strength, n, generator=rng, track=track)
    draws.x = _shown(draws.x)
    return draws


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


def _attributes(settings: TiltSettings) -> list[tuple[str, Callable[..., Any], dict[Any, float]]]:
    functions = [found_at("attribute", path) for path in settings.attributes]
    targets = [_target(text) for text in settings.targets] or [{} for _ in functions]
    names = [path.partition(":")[2] for path in settings.attributes]
    return list(zip(names, functions, targets, strict=True))


def _target(text: str) -> dict[Any, float]:
    """``yes:.5,no:.5`` as a mapping; whole numbers, true and false are read as such."""
    found: dict[Any, float] = {}
    for part in text.split(","):
        key, _, share = part.strip().rpartition(":")
        try:
            value: Any = {"true": True, "false": False}.get(key.lower(), key)
            found[int(key) if key.lstrip("-").isdecimal() else value] = float(share)
        except ValueError:
            raise fail("target", "shares such as yes:.5,no:.5", repr(text), "correct it") from None
    return found


def _fitted(
    settings: TiltSettings, model: LatentModel, chosen: Sequence[Any], rng: torch.Generator, track: Track
) -> LatentTilt:
    if settings.reference is None:
        attributes = [Attribute(function, target, name) for name, function, target in chosen]
        return tilt_attributes(model, attributes, pool=settings.pool, generator=rng, track=track)
    images = load_images(settings.reference).float01()
    with torch.no_grad():
        low = float(model.decode(torch.randn(SHOWN, model.latent_dim, generator=rng)).min())
    images = 2 * images - 1 if low < -0.01 else images  # files hold [0, 1]; the model's draws say which scale is its
    named = settings.features
    own = named is not None and named.partition(":")[0] not in ("pixels", "pca", "classifier", "torchvision", "timm")
    features: Any = found_at("features", str(named)) if own else named
    return tilt_generator(model, images, features=features, pool=settings.pool, generator=rng, track=track)


def _write(
    folder: Path, settings: TiltSettings, tilt: LatentTilt, chosen: Sequence[Any], rng: torch.Generator, track: Track
) -> None:
    prior = in_chunks(tilt.decode, tilt.sample_base(settings.samples, generator=rng), 256)
    draws = SNIS(pool=max(settings.pool, settings.samples)).draw(tilt, settings.samples, generator=rng, track=track)
    energy = getattr(getattr(tilt.net, "energy", None), "gain", None)
    metrics: dict[str, Any] = {
        "tilted": draws.diagnostics,
        "gain": energy,
        "samples": settings.samples,
        "shares": {
            name: _shares(function, target, prior, draws.x) for name, function, target in chosen
        },
    }  # fmt: skip
    tilt.save(folder)
    draws.x, prior = _shown(draws.x), _shown(prior)
    if prior.ndim == 4:
        for name, images in (("before", prior), ("after", draws.x)):
            figure = plot_image_grid(images[:SHOWN], name, columns=8)
            write_atomic(folder / "figures" / f"{name}.png", figure.savefig)
    save_samples(folder / "samples.npz", draws)
    write_json(folder / "metrics.json", metrics)
    plain = _plain(settings)
    add_files(folder, ["samples.npz"], tilt_run=plain)
    write_text(folder / "README.md", tilt_card(metrics, plain))
    write_text(folder / "report.html", tilt_page(folder, metrics, plain))


def _plain(settings: TiltSettings) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(settings).items()}


def _shares(
    function: Callable[[Tensor], Any], target: Mapping[Any, float], before: Tensor, after: Tensor
) -> list[dict[str, Any]]:
    """Shares of each value before and after, the latter with its 95 % (Wilson) interval."""
    values = [[str(v.item() if hasattr(v, "item") else v) for v in function(x)] for x in (before, after)]
    keys = [str(k) for k in target] or sorted({*values[0], *values[1]})
    rows = []
    for key in keys:
        p, q = (side.count(key) / len(side) for side in values)
        wanted = next((share for k, share in target.items() if str(k) == key), None)
        rows.append({"value": key, "target": wanted, "before": p, "after": q, "interval": _wilson(q, len(values[1]))})
    return rows


def _wilson(p: float, n: int) -> list[float]:
    centre, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return [max(0.0, (centre - half) / (1 + Z * Z / n)), min(1.0, (centre + half) / (1 + Z * Z / n))]


def _shown(x: Tensor) -> Tensor:
    """Images in [0, 1] of a model's in [−1, 1]; others as they are."""
    return (x / 2 + 0.5).clamp(0, 1) if x.ndim == 4 and float(x.min()) < -0.01 else x
