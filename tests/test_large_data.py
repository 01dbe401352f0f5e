"""Images that are not held in memory: the same fit from them, wherever they lie, and what is wrong with them named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from latentebm import Debiaser
from latentebm.data import reading, stored
from latentebm.data.images import as_data, load_images, open_images
from latentebm.data.labelled import Images, StoredSet
from latentebm.settings.fields import Settings
from latentebm.workflow.problem import pose

PIXELS = np.random.default_rng(0).integers(0, 256, (2_100, 4, 4), dtype=np.uint8)  # more than are read without workers
LABELS = np.arange(len(PIXELS)) % 3


class Pairs(Dataset):
    """Pairs of image and label by row, whatever the row: its __getitem__ never raises IndexError."""

    def __init__(self, wrong=None):
        self.wrong = wrong

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, row):
        image = PIXELS[row % len(PIXELS)]
        return (image[:, :3] if row == self.wrong else image), int(LABELS[row % len(PIXELS)])


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(stored, "HELD", 1_000)


def weights(biased):
    model = Debiaser(width=8, epochs=2, precision="fp32").fit_vae(biased)
    return torch.cat([p.flatten() for p in model.vae_.parameters()])


def test_a_dataset_read_by_workers_gives_the_fit_of_the_same_images_in_memory(small_memory):
    assert isinstance(as_data(Pairs()), StoredSet)
    assert torch.equal(weights(Pairs()), weights(PIXELS))


def test_a_stream_goes_on_where_it_was():
    """After any number of batches: within an epoch, and between two."""

    def batches():
        images = stored.StoredImages(reading.Rows(torch.from_numpy(PIXELS[:10])), (1, 4, 4))
        settings = {"batch_size": 3, "epochs": 3, "generator": torch.Generator().manual_seed(0)}
        return stored.StoredMinibatches(images, torch.arange(10), **settings)

    whole = [rows.tolist() for _, rows in batches()]
    for used in range(9):
        begun = batches()
        _ = [next(iterator) for iterator in [iter(begun)] for _ in range(used)]
        rest = batches()
        rest.generator = begun.generator
        rest.load_state_dict(begun.state_dict())
        assert [rows.tolist() for _, rows in rest] == whole[used:]


def test_arrays_are_mapped_where_they_lie(small_memory, tmp_path):
    pixels, labels = PIXELS[:90], LABELS[:90]
    np.save(tmp_path / "x.npy", pixels)
    np.savez(tmp_path / "x.npz", images=pixels, labels=labels)
    np.savez_compressed(tmp_path / "c.npz", images=pixels)
    np.save(tmp_path / "f.npy", (pixels / 255).astype(np.float32))
    for name, kind in (("x.npy", StoredSet), ("x.npz", StoredSet), ("c.npz", Images), ("f.npy", StoredSet)):
        data = open_images(str(tmp_path / name))
        assert isinstance(data, kind)
        assert data.whole(limited=False).images[:, 0].numpy().tolist() == pixels.tolist()
    assert open_images(str(tmp_path / "x.npz")).counts() == [30, 30, 30]
    part = np.load(tmp_path / "x.npy", mmap_mode="r")[7:]  # whose offset in the file is not the array's own
    assert as_data(part).whole(limited=False).images[0, 0].tolist() == pixels[7].tolist()


def test_folders_and_saved_datasets_stay_on_disk(small_memory, tmp_path):
    hub = pytest.importorskip("datasets")
    for k in range(2):
        (tmp_path / "classes" / "ab"[k]).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(PIXELS[2 * i + k]).save(tmp_path / "classes" / "ab"[k] / f"{i:02}.png")
    data = open_images(str(tmp_path / "classes"))
    assert isinstance(data, StoredSet)
    assert (data.counts(), data.class_names, tuple(data.images.item)) == ([20, 20], ("a", "b"), (1, 4, 4))
    assert open_images(str(tmp_path / "classes" / "a")).labels is None
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=["a", "b"])})
    rows = {"image": [Image.fromarray(x) for x in PIXELS[:80]], "label": [0, 1] * 40}
    hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hub"))
    saved = open_images(str(tmp_path / "hub"))
    assert (type(saved), saved.counts(), saved.class_names) == (StoredSet, [40, 40], ("a", "b"))
    assert load_images(str(tmp_path / "hub")).images[7, 0].tolist() == PIXELS[7].tolist()


def test_a_run_leaves_the_biased_set_on_disk(small_memory, tmp_path):
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=LABELS)
    settings = Settings(data=str(tmp_path / "x.npz"), proportions="0.5,0.3,0.2", reference_per_class=10)
    problem = pose(settings, torch.Generator().manual_seed(0))
    assert isinstance(problem.biased, StoredSet)
    assert problem.counts(problem.biased) == [567, 340, 226]
    held = pose(settings, torch.Generator().manual_seed(0))
    assert torch.equal(problem.reference.images, held.reference.images)
    settings.reference_per_class = 50
    with pytest.raises(ValueError, match="smaller reference_per_class"):
        pose(settings, torch.Generator().manual_seed(0))


class Unsized(Pairs):
    __len__ = None


class InOrder(IterableDataset):
    def __iter__(self):
        return iter(PIXELS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Pairs(wrong=2_077), r"biased\[2077\]: expected shape \(1, 4, 4\), .* got \(1, 4, 3\)"),
        (Unsized(), "biased: expected a Dataset with a length"),
        (InOrder(), "biased: expected a map-style Dataset"),
        (torch.utils.data.TensorDataset(torch.ones(3, 4, 4) * 7), r"biased\[0\]: expected floats in \[0, 1\]"),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_training(small_memory, data, message):
    with pytest.raises(ValueError, match=message):
        Debiaser().fit(data, PIXELS[:5])
