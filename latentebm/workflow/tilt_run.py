"""The job of ``latentebm tilt``: somebody's model, a reference or wanted shares, and a run folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from latentebm import processes
from latentebm._version import __version__
from latentebm.checks import fail
from latentebm.chunks import decode_chunk
from latentebm.data.images import load_images
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.folders import Workplace, check_out, run_folder
from latentebm.disk.walk import walked
from latentebm.files import write_json
from latentebm.models.decode_time import decode_seconds, pool_size
from latentebm.models.features import Attribute
from latentebm.models.latent_model import LatentModel, check_model
from latentebm.models.seen.image_scale import scale_of
from latentebm.models.storage.spooled_model import SpooledModel
from latentebm.models.tilts import LatentTilt
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.sampling.split import draw_split
from latentebm.tilting.any_model import tilt_generator
from latentebm.tilting.attributes import tilt_attributes
from latentebm.training.logs import log_file, logged
from latentebm.workflow.tilt_results import write_tilt_run
from latentebm.workflow.tilt_settings import TiltSettings, by_name, found_at

__all__ = ["TiltSettings", "found_at", "run_tilt"]

SPOOLED, FLOAT = 60.0, 4  # seconds of decoding above which data are kept on disk; bytes of a number


def run_tilt(settings: TiltSettings, *, track: Track = silent) -> Path:
    """Fit the tilt, draw, and write tilt, draws, figures, report and model card into a run folder.

    A run that was stopped or killed goes on, where the same is asked for again, with the fits that are done, and with
    what has been decoded where that is kept on disk: to the same bits.

    In a process group of torch.distributed every process calls it alike: they decode and draw together, rank 0 alone
    writes, and there is neither spool nor checkpoint.

    Raises:
        ValueError: settings, a model, features or data that are not as described; nothing is written then.
        FileNotFoundError: data that are not there.
        LostRankError: of several processes one has ended or hangs.
    """
    out = check_out(settings.out, settings.overwrite)
    if settings.spool and processes.grouped():
        raise fail("spool", "one process", f"{processes.world()} of them", "leave it out, or start one")
    job = {"latentebm": __version__, "tilt": {**settings.plain(), "out": "", "overwrite": False}}
    with ExitStack() as stack:

        def begin() -> Workplace:
            place = stack.enter_context(run_folder(out, settings.overwrite, job=job))
            stack.enter_context(checkpoints(place.kept, keep=True))
            return place

        # Of several processes rank 0 alone has a place to write; what it cannot do is an error in all.
        place = processes.on_main(begin)
        _run(settings, place, track)
    return out


def _run(settings: TiltSettings, place: Workplace | None, track: Track) -> None:
    model, chosen = processes.together(lambda: (_built(settings), _attributes(settings)))
    settings = processes.from_main(processes.on_main(lambda: _sized(settings, model, cast(Workplace, place).kept)))  # type: ignore[assignment]
    if settings.spool:
        model = SpooledModel(model, cast(Workplace, place).kept / "spool", batch_size=_batch(model))
    rng = stream(settings.seed)
    with logged(None if place is None else log_file(place, tensorboard=settings.tensorboard)):
        tilt = _fitted(settings, model, chosen, rng, track)
    prior, draws = _drawn(settings, tilt, rng, track)
    if place is not None:
        place.put_log()
    processes.on_main(lambda: write_tilt_run(cast(Workplace, place).new, settings, tilt, chosen, prior, draws, rng))


def _built(settings: TiltSettings) -> LatentModel:
    return check_model("model", found_at("model", settings.model)())


def _sized(settings: TiltSettings, model: LatentModel, kept: Path) -> TiltSettings:
    """Settings whose pool is a number and whose spool is decided, the same when an unfinished run goes on."""
    if processes.grouped():
        return replace(settings, pool=pool_size(model, settings.pool), spool=False)
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


def _drawn(settings: TiltSettings, tilt: LatentTilt, rng: torch.Generator, track: Track) -> tuple[Tensor, Draws]:
    """Data of the model as it is, and draws of the tilt."""
    base = tilt.sample_base(settings.samples, generator=rng)

    def decoded(own: Tensor) -> Tensor:
        parts = own.split(decode_chunk(tilt.model))
        return torch.cat(walked(tilt.decode, parts, "before", lambda: [base, tilt.decode(base[:1])], track=track))

    prior = processes.spread(decoded, base)
    sampler = settings.sampler_of(tilt, settings.samples)
    return prior, draw_split(sampler, tilt, settings.samples, generator=rng, track=track)
