"""Any number of draws in constant memory: shards of images, each whole and each from a random stream of its own."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latentebm import processes
from latentebm.checks import check_int, check_number, fail
from latentebm.debiaser import Debiaser
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.folders import whole_files
from latentebm.disk.statefile import digest
from latentebm.progress import Track, silent
from latentebm.registry import stored
from latentebm.rng import stream
from latentebm.training.logs import Log, reporter
from latentebm.workflow.shard_stores import FORMATS, Store, begin, check_stream
from latentebm.workflow.tilt_redraw import TiltRun

__all__ = ["stream_samples"]

HEALTH = ("ess", "pareto_k", "duplicates")  # of a sampler's diagnostics
IMAGE, OVER = 3, 0.2  # dimensions of an image; how far some decoders overshoot [0, 1]
STREAMS = 1_000  # number of the first shard's random stream; those below belong to the stages of a run


def stream_samples(
    model: Debiaser | TiltRun,
    n: int,
    out: Path | str,
    *,
    form: str = "npz",
    size: int = 10_000,
    strength: float = 1.0,
    seed: int | None = None,
    overwrite: bool = False,
    track: Track = silent,
    log: Log | None = None,
) -> Path:
    """Draw any number of debiased images into a folder of shards, or into one array, in constant memory.

    Each shard is written whole, from a random stream of its own: the same call after an interruption draws the shards
    that are missing, and gives the same bytes; so do several processes, which share the shards. Pixels are uint8, as
    `Debiaser.fit` and ``--data`` take them.

    Arguments:
        model: fitted, or a run of ``latentebm tilt`` whose items are images.
        n: images.
        out: folder for ``npz`` and ``png``, a name ending in .npy for ``npy``.
        form: ``npz`` (images, latent codes and log-weights), ``png``, or ``npy``: images alone, in one mapped array.
        size: images per shard, which alone are held in memory. SNIS draws a pool for each.
        strength: factor of the energy in [0, 1.5].
        seed: of the draws; None takes the model's own.
        overwrite: replace what an earlier call left there.
        track: shows progress.
        log: called with each shard's number and, where the sampler has them, ``ess``, ``pareto_k``, ``duplicates``.

    Returns:
        The path.

    Raises:
        ValueError: an argument is not as described, or something else is there.

    Example:
        >>> import tempfile
        >>> images = np.random.default_rng(0).random((64, 8, 8))
        >>> model = Debiaser(width=16, epochs=1, folds=2, tilt_steps=2, pool=500).fit(images, images[:9])
        >>> folder = stream_samples(model, 25, Path(tempfile.mkdtemp()) / "many", size=10)
        >>> [len(np.load(file)["images"]) for file in sorted(folder.glob("*.npz"))]
        [10, 10, 5]
    """
    path, kind = check_stream(out, form, overwrite), FORMATS[form]
    item, identity = _described(model, strength)
    store = kind(path, check_int("n", n), check_int("size", size), item)
    seed = model.seed if seed is None else check_int("seed", seed, low=0)
    job = {"n": n, "size": size, "format": form, "seed": seed, "strength": strength, **identity}
    with ExitStack() as stack:

        def begun() -> Path:
            place = stack.enter_context(whole_files(path, job=job, afresh=overwrite))
            begin(store, job, overwrite)
            return place.kept

        kept = processes.on_main(begun)
        _draw_shards(model, store, job, kept, track, log)
        processes.on_main(store.finish)
    return path


def _draw_shards(
    model: Debiaser | TiltRun, store: Store, job: dict[str, Any], kept: Path | None, track: Track, log: Log | None
) -> None:
    """Draw the shards that are missing; the processes share them."""
    missing = processes.from_main([shard for shard in store.shards if not store.place(shard).exists()])
    own = missing[processes.rank() :: processes.world()]

    report = reporter("shards", log)

    def draw() -> None:
        for shard in track(own, "shards"):
            n, rng = len(store.rows(shard)), stream(job["seed"], STREAMS + shard)
            with nullcontext() if kept is None else checkpoints(kept / str(shard)):
                draws = model.draw(n, generator=rng, strength=job["strength"], track=silent)
            store.write(shard, _pixels(draws.x), draws)
            known = {name: draws.diagnostics.get(name) for name in HEALTH}
            report(shard, {name: value for name, value in known.items() if value is not None})

    processes.together(draw)


def _described(model: Debiaser | TiltRun, strength: float) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The shape of an image, and what decides the draws besides seed and strength; raises where there can be none."""
    if isinstance(model, Debiaser):
        model.tilt(strength)  # checks both
        weights = digest([model.vae_.state_dict(), model.energy_.state_dict()])
        return model.vae_.data_shape, {"sampler": str(stored(model.sampler)), "model": weights}
    check_number("strength", strength, low=0, high=1.5)
    if len(shape := model.data_shape) != IMAGE:
        raise fail("run", "one of images (C, H, W) for shards", f"one of items {shape}", "leave --format out")
    return shape, model.identity


def _pixels(x: Tensor) -> np.ndarray:
    """Images in [0, 1] as uint8."""
    low, high = float(x.min()), float(x.max())
    if not -OVER <= low <= high <= 1 + OVER:
        fix = "leave --format out, or let the model give images in [0, 1] or [-1, 1]"
        raise fail("run", "images in [0, 1] for shards of uint8", f"values in [{low:.3g}, {high:.3g}]", fix)
    return (x.clamp(0, 1) * 255).round().byte().cpu().numpy()
