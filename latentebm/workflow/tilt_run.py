"""The job of ``latentebm tilt``: somebody's model, a reference or wanted shares, and a run folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentebm._version import __version__
from latentebm.checks import fail
from latentebm.chunks import decode_chunk
from latentebm.data.images import load_images
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.folders import check_out, run_folder
from latentebm.disk.manifest import add_files
from latentebm.evaluation.fidelity import copied_share
from latentebm.evaluation.fixed_features import fixed_features
from latentebm.files import write_atomic, write_json, write_text
from latentebm.models.decode_time import decode_seconds, pool_size
from latentebm.models.features import Attribute
from latentebm.models.latent_model import LatentModel, check_model
from latentebm.models.seen.image_scale import scale_of, to_unit
from latentebm.models.storage.spooled_model import SpooledModel
from latentebm.models.tilts import LatentTilt
from latentebm.plots import plot_image_grid
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.tilting.any_model import tilt_generator
from latentebm.tilting.attributes import tilt_attributes
from latentebm.training.logs import log_file, logged
from latentebm.workflow.run import save_samples
from latentebm.workflow.tilt_card import tilt_card, tilt_page
from latentebm.workflow.tilt_settings import TiltSettings, by_name, found_at

__all__ = ["TiltSettings", "found_at", "run_tilt"]

SHOWN, Z = 64, 1.96
IMAGES, COPIES = 4, 1_000  # dimensions of a batch of images; reference images that draws are compared with
SPOOLED, FLOAT = 60.0, 4  # seconds of decoding above which data are kept on disk; bytes of a number


def run_tilt(settings: TiltSettings, *, track: Track = silent) -> Path:
    """Fit the tilt, draw, and write tilt, draws, figures, report and model card into a run folder.

    A run that was stopped or killed goes on, where the same is asked for again, with the fits that are done, and with
    what has been decoded where that is kept on disk: to the same bits.

    Raises:
        ValueError: settings, a model, features or data that are not as described; nothing is written then.
        FileNotFoundError: data that are not there.
    """
    out = check_out(settings.out, settings.overwrite)
    job = {"latentebm": __version__, "tilt": {**_plain(settings), "out": "", "overwrite": False}}
    with run_folder(out, settings.overwrite, job=job) as place, checkpoints(place.kept, keep=True):
        model = check_model("model", found_at("model", settings.model)())
        chosen = _attributes(settings)
        settings = _sized(settings, model, place.kept)
        model = SpooledModel(model, place.kept / "spool", batch_size=_batch(model)) if settings.spool else model
        rng = stream(settings.seed)
        with logged(log_file(place, tensorboard=settings.tensorboard)):
            tilt = _fitted(settings, model, chosen, rng, track)
        place.put_log()
        _write(place.new, settings, tilt, chosen, rng, track)
    return out


def _sized(settings: TiltSettings, model: LatentModel, kept: Path) -> TiltSettings:
    """Settings whose pool is a number and whose spool is decided, the same when an unfinished run goes on."""
    file = kept / "pool.json"
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
    else:
        pool, spool = pool_size(model, settings.pool), settings.spool
        if spool is None:
            spool = pool * decode_seconds(model) > SPOOLED
        found = {"pool": pool, "spool": spool}
        if spool:
            _check_space(model, pool + 2 * settings.samples, kept)
            write_json(file, found)
    return replace(settings, **found)


def _check_space(model: LatentModel, decodes: int, folder: Path) -> None:
    """Raise where the decoded data of a whole run do not fit on the disk."""
    need = 2 * decodes * FLOAT * math.prod(getattr(model, "data_shape", (1,)))
    free = shutil.disk_usage(folder).free
    if need > free:
        got = f"{free / 1e9:.1f} GB free for {need / 1e9:.1f} GB of decoded data"
        raise fail("out", "a disk with room for what is decoded", got, "lower the pool, or pass spool=False")


def _batch(model: LatentModel) -> int:
    return getattr(model, "batch_size", None) or min(64, decode_chunk(model))


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
    images = load_images(settings.reference, name="reference").float01()
    images = 2 * images - 1 if scale_of(model) < 0 else images  # files hold [0, 1]
    named = settings.features
    features: Any = named if by_name(named) else found_at("features", str(named))
    return tilt_generator(model, images, features=features, pool=settings.pool, generator=rng, track=track)


def _write(
    folder: Path, settings: TiltSettings, tilt: LatentTilt, chosen: Sequence[Any], rng: torch.Generator, track: Track
) -> None:
    base = tilt.sample_base(settings.samples, generator=rng)
    prior = torch.cat([tilt.decode(u) for u in track(base.split(decode_chunk(tilt.model)), "before")])
    draws = settings.sampler_of(tilt, settings.samples).draw(tilt, settings.samples, generator=rng, track=track)
    energy, low = getattr(getattr(tilt.net, "energy", None), "gain", None), scale_of(tilt.model)
    metrics: dict[str, Any] = {
        "tilted": draws.diagnostics,
        "gain": energy,
        "samples": settings.samples,
        "copied": _copied(settings, to_unit(prior, low), to_unit(draws.x, low), rng),
        "shares": {
            name: _shares(function, target or _held(function, settings, low), prior, draws)
            for name, function, target in chosen
        },
    }
    tilt.save(folder)
    draws.x, prior = to_unit(draws.x, low), to_unit(prior, low)
    if prior.ndim == IMAGES:
        by_energy = _distinct(draws)
        ends = torch.cat([by_energy[: SHOWN // 2], by_energy[-(SHOWN // 2) :]]) if len(by_energy) > SHOWN else by_energy
        metrics["energies"] = (-draws.log_weight[ends]).tolist()
        figure = plot_image_grid(draws.x[ends.to(draws.x.device)], "by energy", columns=8)
        write_atomic(folder / "figures" / "energy.png", figure.savefig)
        for name, images in (("before", prior), ("after", draws.x)):
            figure = plot_image_grid(images[:SHOWN], name, columns=8)
            write_atomic(folder / "figures" / f"{name}.png", figure.savefig)
    save_samples(folder / "samples.npz", draws)
    write_json(folder / "metrics.json", metrics)
    plain = _plain(settings)
    add_files(folder, ["samples.npz"], tilt_run=plain)
    write_text(folder / "README.md", tilt_card(metrics, plain))
    write_text(folder / "report.html", tilt_page(folder, metrics, plain))


def _copied(
    settings: TiltSettings, before: Tensor, after: Tensor, generator: torch.Generator
) -> dict[str, float] | None:
    """Share of draws nearer to a reference image than to any of as many untilted draws, before and after the tilt."""
    if settings.reference is None or before.ndim != IMAGES:
        return None
    half, seen = len(before) // 2, load_images(settings.reference, name="reference").float01()[:COPIES]
    seen = seen[:half]
    if len(seen) < 2:
        return None
    known, (own, other) = fixed_features(seen.to(before.device)), fixed_features(before).split(half)[:2]
    sides = {"before": other, "after": fixed_features(after)}
    return {name: copied_share(x, known, own, generator=generator) for name, x in sides.items()}


def _plain(settings: TiltSettings) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(settings).items()}


def _distinct(draws: Draws) -> Tensor:
    """Places of draws from the likeliest, each that was drawn more than once a single time."""
    found: dict[bytes, int] = {}
    for place in draws.log_weight.argsort(descending=True).tolist():
        found.setdefault(draws.latent[place].cpu().numpy().tobytes(), place)
    return torch.tensor(list(found.values()))


def _held(function: Callable[[Tensor], Any], settings: TiltSettings, low: float) -> dict[str, float]:
    """Shares of an attribute's values in the reference, which a tilt to it should reach."""
    if settings.reference is None:
        return {}
    images = load_images(settings.reference, name="reference").float01()
    found = _read(function, images if low == 0 else 2 * images - 1)
    return {value: found.count(value) / len(found) for value in sorted({*found})}


def _read(function: Callable[[Tensor], Any], x: Tensor) -> list[str]:
    return [str(v.item() if hasattr(v, "item") else v) for v in function(x)]


def _shares(
    function: Callable[[Tensor], Any], target: Mapping[Any, float], before: Tensor, after: Draws
) -> list[dict[str, Any]]:
    """Shares of each value before and after, the latter with its 95 % (Wilson) interval."""
    values = [_read(function, x) for x in (before, after.x)]
    wanted, rows = {str(key): share for key, share in target.items()}, []
    weighed = after.diagnostics["ess"] * (after.diagnostics.get("decodes") or after.diagnostics["pool"])
    count = 1 / (1 / len(values[1]) + 1 / weighed)  # draws from a pool tell no more than its weights do
    for key in [*wanted, *sorted({*values[0], *values[1]} - {*wanted})]:
        p, q = (side.count(key) / len(side) for side in values)
        share = wanted.get(key, 0.0 if wanted else None)
        rows.append({"value": key, "target": share, "before": p, "after": q, "interval": _wilson(q, count)})
    return rows


def _wilson(p: float, n: float) -> list[float]:
    centre, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return [max(0.0, (centre - half) / (1 + Z * Z / n)), min(1.0, (centre + half) / (1 + Z * Z / n))]
