"""A costly decoder whose data are kept on disk: asked again for the same codes, it reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, fail
from latentebm.disk.manifest import read_json
from latentebm.files import finite, write_atomic, write_json
from latentebm.models.latent_model import LatentModel, check_model
from latentebm.models.storage.fingerprint import fingerprint

__all__ = ["SpooledModel"]

MODEL = "model.json"


class SpooledModel(nn.Module):
    """A model that decodes each batch of codes once, and keeps the data in a folder rather than in memory.

    A job that is run again with the same seed after a kill asks for the same codes: it reads what was decoded before,
    and goes on to the same bits. Batches are written whole or not at all. Codes whose gradient is asked for are decoded
    again.

    Attributes:
        decoded: codes that were decoded, not read.

    Arguments:
        model: anything with `latent_dim` and `decode`.
        folder: made where it does not exist; one of another model, other weights or another prompt is refused.
        batch_size: codes decoded, and written, at once.

    Raises:
        ValueError: the folder holds another model's data.

    Example:
        >>> import tempfile
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> model = SpooledModel(WrappedModel(nn.Identity(), 1), tempfile.mkdtemp())
        >>> twice = [model.decode(torch.ones(3, 1)).sum() for _ in range(2)]
        >>> twice, model.decoded
        ([tensor(3.), tensor(3.)], 3)
    """

    def __init__(self, model: LatentModel, folder: Path | str, *, batch_size: int = 64) -> None:
        super().__init__()
        self.spooled, self.folder = check_model("model", model), Path(folder)
        self.latent_dim, self.batch_size = model.latent_dim, check_int("batch_size", batch_size)
        self.decoded = 0
        self._known(fingerprint(model))
        self._rows: dict[bytes, tuple[Path, int]] = {}
        self._next = 0
        for file in sorted(f for f in self.folder.glob("*.npy") if f.stem.isdecimal() and f.is_file()):
            self._add(file, _keys(file.with_suffix(".txt")))

    def __getattr__(self, name: str) -> Any:
        """What the model has besides, such as ``encode`` and ``data_shape``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "spooled":  # not set yet
                raise
            return getattr(self.spooled, name)

    def decode(self, z: Tensor) -> Tensor:
        """Data (N, *data_shape) of codes (N, d)."""
        check_event("z", z, (self.latent_dim,))
        if torch.is_grad_enabled() and z.requires_grad:
            return self.spooled.decode(z)
        return torch.cat([self._part(part) for part in z.split(self.batch_size)])

    @torch.no_grad()
    def _part(self, z: Tensor) -> Tensor:
        keys = [_digest(row) for row in z.detach().cpu().numpy()]
        if any(key not in self._rows for key in keys):
            self._write(keys, self.spooled.decode(z))
        places = [self._rows[key] for key in keys]
        held = {file: np.load(file, mmap_mode="r") for file in dict.fromkeys(file for file, _ in places)}
        return torch.from_numpy(np.stack([held[file][row] for file, row in places])).to(z.device)

    def _write(self, keys: list[bytes], x: Tensor) -> None:
        """Put a batch on disk; the keys come first, so that no data are without them."""
        self.decoded += len(keys)
        file = self.folder / f"{self._next:08d}.npy"
        write_atomic(file.with_suffix(".txt"), lambda path: path.write_text("\n".join(key.hex() for key in keys)))
        plain = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        write_atomic(file, lambda path: np.save(path, plain.detach().cpu().numpy()))
        self._add(file, keys)

    def _add(self, file: Path, keys: list[bytes]) -> None:
        self._next = int(file.stem) + 1
        for row, key in enumerate(keys):
            self._rows.setdefault(key, (file, row))  # the first stands, as it did before a kill

    def _known(self, found: dict[str, Any]) -> None:
        """Write whose data the folder holds, or raise where they are another's."""
        path, found = self.folder / MODEL, json.loads(json.dumps(finite(found)))
        if not path.exists():
            write_json(path, found)
        elif read_json(path, "folder") != found:
            got = f"those of another model, of other weights or of another prompt in {self.folder}"
            raise fail("folder", "data that this model decoded", got, "choose another folder")


def _keys(file: Path) -> list[bytes]:
    """The keys of a batch."""
    try:
        if not file.is_file():
            raise ValueError
        return [bytes.fromhex(key) for key in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        raise fail("folder", "data as they were decoded", f"{file}, which is not", "delete the folder") from None


def _digest(row: np.ndarray) -> bytes:
    return hashlib.sha256(row.tobytes()).digest()[:16]
