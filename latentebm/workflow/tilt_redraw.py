"""A finished run of ``latentebm tilt``, opened to draw from it again."""

from __future__ import annotations

from pathlib import Path

from torch import Generator

from latentebm.checks import check_int, check_number
from latentebm.disk.manifest import as_written
from latentebm.files import sha256
from latentebm.models.seen.image_scale import scale_of, to_unit
from latentebm.models.storage.tilt_folder import load_tilt, tilt_config
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.sampling import Draws
from latentebm.sampling.split import draw_split
from latentebm.workflow.tilt_settings import TiltSettings, found_at, packages_of

__all__ = ["TiltRun", "is_tilt_run"]

STRONGEST = 1.5


class TiltRun:
    """The tilt of a run, over its model built as it was then.

    Attributes:
        tilt: with the model.
        seed: of the run.
        identity: what decides the draws besides their seed and strength.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: the model is not the one that was tilted.
    """

    def __init__(self, folder: Path | str) -> None:
        config = Path(folder) / "config.json"
        with as_written(config):
            self.settings = TiltSettings(**tilt_config(folder)["tilt_run"])
            trusted = packages_of(vars(self.settings))
            check_int("seed", self.settings.seed, low=0)
        model = found_at("model", self.settings.model)()
        self.tilt, self._low = load_tilt(folder, model, trusted=trusted), scale_of(model)
        self.seed, self.identity = self.settings.seed, {"sampler": self.settings.sampler, "model": sha256(config)}

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        base = self.tilt.sample_base(1, generator=stream(0))
        return tuple(self.tilt.decode(base).shape[1:])

    def sample(self, n: int, *, strength: float = 1.0, seed: int | None = None, track: Track = silent) -> Draws:
        """Draw `n` items, images in [0, 1], from the run's own stream or that of another seed."""
        own = self.seed if seed is None else check_int("seed", seed, low=0)
        return self.draw(n, generator=stream(own, 1), strength=strength, track=track)

    def draw(self, n: int, *, generator: Generator, strength: float = 1.0, track: Track = silent) -> Draws:
        """Draw `n` items from a stream of your own; the rest is as for `sample`."""
        tilt = self.tilt * check_number("strength", strength, low=0, high=STRONGEST)
        sampler = self.settings.sampler_of(self.tilt, check_int("n", n))
        draws = draw_split(sampler, tilt, n, generator=generator, track=track)
        draws.x = to_unit(draws.x, self._low)
        return draws


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
