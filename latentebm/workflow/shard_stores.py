"""Where shards of drawn images go: a folder of archives or pictures, or one mapped array; each whole or not there."""

from __future__ import annotations

import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from latentebm.checks import check_choice, fail
from latentebm.disk.manifest import as_written, read_json
from latentebm.disk.outputs import check_place
from latentebm.files import finite, write_atomic, write_json
from latentebm.sampling import Draws

__all__ = ["FORMATS", "Store", "begin", "check_stream"]


@dataclass(frozen=True)
class Store(ABC):
    """Where shards go: `n` images of shape `item`, `size` of them per shard."""

    out: Path
    n: int
    size: int
    item: tuple[int, ...]
    suffix: ClassVar[str] = ""

    @property
    def manifest(self) -> Path:
        """The file that says what the shards are of."""
        return self.out / "manifest.json"

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(-(-self.n // self.size))

    def rows(self, shard: int) -> range:
        """Numbers of a shard's images."""
        return range(shard * self.size, min((shard + 1) * self.size, self.n))

    @abstractmethod
    def place(self, shard: int) -> Path:
        """What is there once a shard is whole."""

    @abstractmethod
    def write(self, shard: int, images: np.ndarray, draws: Draws) -> None:
        """Write a shard's images (n, C, H, W), uint8, whole or not at all."""

    def begin(self) -> None:  # noqa: B027 - of shards in a folder nothing is made before
        """Make what the shards are written into."""

    def finish(self) -> None:  # noqa: B027 - shards in a folder are there already
        """Put in place what all shards together are."""

    def clear(self) -> None:
        """Remove the shards and their manifest."""
        for shard in self.shards:
            place = self.place(shard)
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        self.manifest.unlink(missing_ok=True)


class Archives(Store):
    """One .npz per shard: ``images`` uint8, ``latent`` and ``log_weight`` float32."""

    def place(self, shard: int) -> Path:
        """Its file."""
        return self.out / f"shard-{shard:05d}.npz"

    def write(self, shard: int, images: np.ndarray, draws: Draws) -> None:
        """Not compressed, so that it can be mapped."""
        plain = {name: getattr(draws, name).float().cpu().numpy() for name in ("latent", "log_weight")}
        plain["diagnostics"] = np.array(json.dumps(finite(draws.diagnostics)))
        write_atomic(self.place(shard), lambda temporary: np.savez(temporary, images=images, **plain))


class Pictures(Store):
    """One folder of .png files per shard, numbered through all shards."""

    def place(self, shard: int) -> Path:
        """Its folder."""
        return self.out / f"shard-{shard:05d}"

    def write(self, shard: int, images: np.ndarray, draws: Draws) -> None:
        """Into a hidden folder, which is then renamed."""
        hidden = Path(tempfile.mkdtemp(prefix=f".shard-{shard:05d}-", dir=self.out))
        try:
            for row, image in zip(self.rows(shard), images, strict=True):
                pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
                Image.fromarray(pixels).save(hidden / f"{row:08d}.png")
            hidden.chmod(0o755)
            hidden.rename(self.place(shard))
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


class OneArray(Store):
    """One .npy of all images (n, C, H, W), uint8, mapped; it takes its name once the last shard is in it."""

    suffix = ".npy"

    @property
    def hidden(self) -> Path:
        """Folder of what is not finished, beside the file."""
        return self.out.parent / f".{self.out.name}.shards"

    @property
    def manifest(self) -> Path:
        """In the hidden folder."""
        return self.hidden / "manifest.json"

    def place(self, shard: int) -> Path:
        """A mark that the shard's rows are on disk."""
        return self.hidden / f"{shard:05d}"

    def write(self, shard: int, images: np.ndarray, draws: Draws) -> None:
        """Into its rows; the mark follows once they are on disk."""
        array = np.lib.format.open_memmap(self.hidden / "array.npy", "r+")
        array[self.rows(shard).start : self.rows(shard).stop] = images
        array.flush()
        self.place(shard).touch()

    def begin(self) -> None:
        """Make the array, empty."""
        file, shape = self.hidden / "array.npy", (self.n, *self.item)
        if not file.exists():
            write_atomic(file, lambda path: np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush())

    def finish(self) -> None:
        """Give the array its name and remove the marks."""
        (self.hidden / "array.npy").rename(self.out)
        self.clear()
        self.hidden.rmdir()

    def clear(self) -> None:
        """Remove the marks, and an array that is not finished."""
        super().clear()
        (self.hidden / "array.npy").unlink(missing_ok=True)


FORMATS: dict[str, type[Store]] = {"npz": Archives, "png": Pictures, "npy": OneArray}


def check_stream(out: Path | str, form: str, overwrite: bool = False) -> Path:
    """Return the path if shards of a format can go there.

    Raises:
        ValueError: an unknown format, a name that does not go with it, or something else is there.

    Example:
        >>> check_stream("x.npz", "png")
        Traceback (most recent call last):
        ValueError: out: expected the name of a folder with format=png, got x.npz; pass for example out=samples
    """
    suffix = FORMATS[check_choice("format", form, FORMATS)].suffix
    path = check_place(out, "file" if suffix else "folder")
    if path.suffix != suffix and (suffix or path.suffix in (".npz", ".npy", ".png")):
        expected = f"a name ending in {suffix}" if suffix else "the name of a folder"
        raise fail("out", f"{expected} with format={form}", str(path), f"pass for example out=samples{suffix}")
    if _taken(path, overwrite):
        fix = "choose another, or pass overwrite=True" if suffix else "choose another"
        raise fail("out", "a place where nothing is yet", str(path), fix)
    return path


def _taken(path: Path, overwrite: bool) -> bool:
    """Whether a file that may not be replaced is there, or a folder that holds something else than shards."""
    if not path.is_dir():
        return path.exists() and not overwrite
    return any(path.iterdir()) and not (path / "manifest.json").is_file()


def begin(store: Store, manifest: dict[str, Any], overwrite: bool) -> None:
    """Write the manifest, or find that of the same job begun earlier."""
    earlier = read_json(store.manifest, "out") if store.manifest.is_file() else None
    if overwrite:
        if earlier is not None:
            with as_written(store.manifest):
                type(store)(store.out, int(earlier["n"]), int(earlier["size"]), store.item).clear()
        if store.suffix:
            store.out.unlink(missing_ok=True)
        earlier = None
    if earlier is None:
        write_json(store.manifest, manifest)
    elif earlier != manifest:
        name = next(key for key in manifest if earlier.get(key) != manifest[key])
        got = f"one of {name}={earlier.get(name)} in {store.out}, not {manifest[name]}"
        raise fail("out", "shards of the same job", got, "choose another place, or overwrite it")
    store.begin()
