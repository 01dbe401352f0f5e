"""Saved tilts as repositories of the Hugging Face hub, or as folders in its form."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from latentebm.checks import fail
from latentebm.disk.outputs import check_place
from latentebm.files import write_atomic
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.latent_model import LatentModel
from latentebm.models.storage.hub_mixin import PyTorchModelHubMixin, snapshot_download
from latentebm.models.storage.tilt_folder import load_tilt, save_tilt, tilt_config
from latentebm.models.tilts import ScaledTilt

__all__ = ["HubTilt", "push_to_hub"]

SHARED = ("*.safetensors", "README.md", "metrics.json", "figures/*.png", "config.json")  # last: then all is there
TAGS = ["latentebm", "energy-based-model", "debiasing"]
CARD = """---
{{ card_data }}
---

# A tilt of a generator

An energy over the codes of a trained generator, without that generator: it changes how often each of its draws appears,
and adds nothing to them. It is refused over a model with other weights. Made with latentebm.

```python
from latentebm import SNIS, HubTilt

tilt = HubTilt.from_pretrained(this_repository, model=model)  # trusted=[...] where its features are functions of yours
draws = SNIS().draw(tilt, 100, generator=torch.Generator().manual_seed(0))
```
"""


class _SavedTilt(PyTorchModelHubMixin, library_name="latentebm", tags=TAGS, model_card_template=CARD):
    """A folder that holds a tilt, with the hub's `push_to_hub`."""

    def __init__(self, folder: Path | str) -> None:
        self.folder: Path | None = Path(folder)

    def save_pretrained(self, save_directory: Path | str, **options: Any) -> str | None:
        """Write what others need of the tilt into a folder, with a card; options are those of the mixin.

        Raises:
            ValueError: a folder that holds a config.json: the mixin would delete it.
        """
        folder = check_place(save_directory, "folder")
        if (folder / "config.json").exists():
            raise fail("save_directory", "one without a config.json", f"{folder}", "choose another")
        return super().save_pretrained(folder, **options)

    # The mixin's own saves a state_dict as model.safetensors: a tilt is more than that, and does not hold its model.
    def _save_pretrained(self, save_directory: Path) -> None:
        if self.folder is None:
            return
        for file in (found for pattern in SHARED for found in self.folder.glob(pattern)):
            place = save_directory / file.relative_to(self.folder)
            place.parent.mkdir(exist_ok=True)
            write_atomic(place, partial(shutil.copyfile, file))


class HubTilt(ScaledTilt, _SavedTilt):
    """A tilt with the hub's `save_pretrained`, `push_to_hub` and `from_pretrained`, through `PyTorchModelHubMixin`.

    ``HubTilt.from_pretrained(name_or_folder, model=model, trusted=[...])`` reads what any of them, `Tilt.save` or a
    run of ``latentebm tilt`` wrote, from the hub or a local folder, and checks it as `load_tilt` does. Its energy is
    that of the tilt.

    Arguments:
        tilt: any that can be saved.
        folder: where it was saved, whose card, figures and metrics go along; None saves it first.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: what `save` and `load_tilt` refuse.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.energies import EnergyNet
        >>> from latentebm.models.tilts import LatentTilt
        >>> model, folder = WrappedModel(torch.nn.Linear(2, 3), 2), tempfile.mkdtemp()
        >>> HubTilt(LatentTilt(model, EnergyNet(2))).save_pretrained(folder)
        >>> HubTilt.from_pretrained(folder, model=model).energy(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, tilt: Tilt, folder: Path | str | None = None) -> None:
        ScaledTilt.__init__(self, tilt, 1.0)
        self.folder = None if folder is None else Path(folder)

    def arguments(self) -> dict[str, Any]:
        """The tilt."""
        return {"tilt": self.tilt}

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.folder is None:
            save_tilt(self.tilt, save_directory, overwrite=True)
        super()._save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, model: LatentModel | None = None, trusted: Collection[str] = (), **download: Any
    ) -> HubTilt:
        if model is None:
            raise fail("model", "the one the tilt was fitted to", None, "pass model=, since a tilt is saved without it")
        if not (folder := Path(model_id)).is_dir():
            kept = {k: v for k, v in download.items() if k not in ("map_location", "strict")}
            folder = Path(snapshot_download(model_id, allow_patterns=list(SHARED), **kept))
        return cls(load_tilt(folder, model, trusted=trusted), folder)


def push_to_hub(folder: Path | str, repo: str, **options: Any) -> str:
    """Upload a saved tilt and its card to the Hugging Face hub; the address of the commit.

    Arguments:
        folder: a run of ``latentebm tilt``, or what ``tilt.save`` wrote.
        repo: ``owner/name``, made where it does not exist.
        options: of ``PyTorchModelHubMixin.push_to_hub``, such as ``private=True`` or ``token=``; without a token, the
            machine's own login.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: the folder holds no tilt, or the name is not ``owner/name``.
    """
    tilt_config(folder)
    if len([part for part in repo.split("/") if part.strip()]) != 2:
        raise fail("repo", "owner/name", repr(repo), "pass for example me/balanced-faces")
    return str(_SavedTilt(folder).push_to_hub(repo, **options))
