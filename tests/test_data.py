"""Images, splits and their mistakes."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from latentebm.data.images import as_images, load_images, load_npz
from latentebm.data.imbalance import biased_split
from latentebm.data.shipped import shipped_file

LITERATURE = [0.12, 0.33, 0.28, 0.20, 0.07]


@pytest.fixture(scope="module")
def mnist():
    return load_images("mnist")


def test_mnist_is_the_standard_one(mnist):
    assert mnist.images.shape == (60_000, 1, 28, 28)
    assert mnist.counts() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert load_images("mnist", train=False).counts() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_published_split(mnist, rng):
    biased, reference = biased_split(mnist.labels, range(5), LITERATURE, generator=rng)
    assert torch.bincount(mnist.labels[biased]).tolist() == [2202, 6057, 5139, 3671, 1284]
    assert len(biased) == 18_353
    assert torch.bincount(mnist.labels[reference]).tolist() == [685] * 5
    assert not set(biased.tolist()) & set(reference.tolist())


def test_split_follows_its_seed_and_target(mnist):
    def split(seed, **more):
        return biased_split(mnist.labels, range(5), LITERATURE, generator=torch.Generator().manual_seed(seed), **more)

    assert torch.equal(split(1)[0], split(1)[0])
    assert not torch.equal(split(1)[0], split(2)[0])
    reference = split(1, target=[0.5, 0.5, 0, 0, 0], reference_per_class=10)[1]
    assert torch.bincount(mnist.labels[reference], minlength=5).tolist() == [25, 25, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proportions": [0.5, 0.5]}, "proportions: expected 5 shares"),
        ({"proportions": [0.2] * 4 + [0.3]}, "sum to 1"),
        ({"proportions": [0.9, 0.025, 0.025, 0.025, 0.025]}, "at most 5923 images of class 0"),
        ({"classes": [0, 1, 2, 3, 11]}, "11.* absent"),
        ({"reference_per_class": 5000}, "reference_per_class: expected at most"),
        ({"biased_fraction": 0}, "biased_fraction: expected"),
    ],
)
def test_splits_that_cannot_be(mnist, rng, change, message):
    arguments = {"classes": range(5), "proportions": LITERATURE, **change}
    with pytest.raises(ValueError, match=message):
        biased_split(mnist.labels, arguments.pop("classes"), arguments.pop("proportions"), generator=rng, **arguments)


def test_splits_take_arrays_and_name_labels_that_are_no_numbers(rng):
    labels = np.arange(100) % 2
    seeded = [torch.Generator().manual_seed(0) for _ in range(2)]
    array, tensor = (
        biased_split(y, [0, 1], [0.8, 0.2], generator=g)
        for y, g in zip((labels, torch.tensor(labels)), seeded, strict=True)
    )
    assert all(map(torch.equal, array, tensor))
    for wrong in (labels.astype(str), labels / 2, labels[:, None], torch.zeros(9)):
        with pytest.raises(ValueError, match="labels: expected whole numbers"):
            biased_split(wrong, [0, 1], [0.8, 0.2], generator=rng)


def test_float_and_uint8_images_agree():
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    assert torch.equal(as_images(x).images, as_images(x / 255.0).images)
    assert as_images(np.stack([x, x, x], 1)).images.shape == (4, 3, 5, 6)
    torch.testing.assert_close(as_images(x).float01()[:, 0], torch.from_numpy(x / 255.0).float())


ZEROS = np.zeros((3, 4, 4))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 4)), None, "shape"),
        ((ZEROS, np.zeros(3, int)), None, "a tuple of 2 parts of different shapes; pass images alone"),
        (np.zeros((3, 2, 4, 4)), None, "C 1 or 3"),
        (ZEROS.astype(np.int64), None, "uint8, or float"),
        (ZEROS + 2, None, r"floats in \[2, 2\]"),
        (ZEROS - 0.1, None, "rescale them to"),
        (ZEROS + np.nan, None, "NaN"),
        (ZEROS, np.zeros(2, int), "one per image"),
        (ZEROS, np.array([0.0, 1.0, 2.0]), "whole numbers"),
        (ZEROS, np.array([0, -1, 2]), r"\[-1, 2\]"),
        (ZEROS, np.array([0, 1, 2**63 + 1], np.uint64), r"\[0, 9223372036854775809\]"),
        (ZEROS, torch.tensor([0, 1, 1000], dtype=torch.uint16), r"\[0, 1000\]"),
    ],
)
def test_bad_arrays_are_named(images, labels, message):
    with pytest.raises(ValueError, match=message):
        as_images(images, labels)


def test_npz_never_unpickles(tmp_path):
    np.savez(tmp_path / "evil.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="holds Python objects"):
        load_npz(tmp_path / "evil.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_files_that_are_no_npz(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="data: expected"):
        load_npz(tmp_path / "x.npz")


def test_npz_without_images(tmp_path):
    np.savez(tmp_path / "x.npz", pictures=ZEROS)
    with pytest.raises(ValueError, match="an array called 'images'"):
        load_npz(tmp_path / "x.npz")


def test_folder_of_class_folders(tmp_path):
    for name, value in (("cat", 10), ("dog", 200)):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.full((5, 6), value, np.uint8)).save(tmp_path / name / f"{i}.png")
    data = load_images(str(tmp_path))
    assert data.images.shape == (4, 1, 5, 6)
    assert data.class_names == ("cat", "dog")
    assert data.images[:, 0, 0, 0].tolist() == [10, 10, 200, 200]
    Image.fromarray(np.zeros((7, 6), np.uint8)).save(tmp_path / "dog" / "odd.png")
    with pytest.raises(ValueError, match="images of one size"):
        load_images(str(tmp_path))


def test_missing_data_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mnist, fashion-mnist, an \.npz file or a folder"):
        load_images("mnits")
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        load_images(str(tmp_path / "none.npz"))


def test_a_changed_shipped_file_is_refused(tmp_path):
    (tmp_path / "default.csv").write_text("changed")
    with pytest.raises(OSError, match="expected SHA-256"):
        shipped_file("default.csv", [tmp_path])
    with pytest.raises(FileNotFoundError, match="latentebm-data"):
        shipped_file("MNIST/raw/t10k-labels-idx1-ubyte.gz", [tmp_path])


def test_data_root_comes_before_the_shipped_files(tmp_path, monkeypatch):
    """An MNIST of the user's own, in torchvision's layout, wins; so does the environment variable."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(_idx(np.full((2, 28, 28), 7, np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(_idx(np.array([3, 4], np.uint8)))
    assert load_images("mnist", root=tmp_path).labels.tolist() == [3, 4]
    monkeypatch.setenv("LATENTEBM_DATA", str(tmp_path))
    assert len(load_images("mnist")) == 2


def _idx(array):
    out = io.BytesIO()
    out.write(bytes([0, 0, 8, array.ndim]))
    for size in array.shape:
        out.write(size.to_bytes(4, "big"))
    out.write(array.tobytes())
    return out.getvalue()


def member(shape, dtype="|u1", held=256):
    """An .npy file whose header promises a shape, and which holds some bytes."""
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + bytes(held)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images": member((2**40, 8, 8))}, "promises 70,368,744,177,664 bytes and has 256"),
        ({"images": member((4, 8, 8)), "labels": member((2**43,), "<i8")}, "labels.npy .* promises"),
        ({"images": member((-1, 8, 8))}, "promises -64 bytes"),
        ({"images": member((4, 8, 8), held=255)}, "promises 256 bytes and has 255"),
        ({"images": b"text"}, "EOF"),
        ({"images": member((4, 8), "<U2", 256)}, "an array of numbers, got <U2"),
        ({"images": member((4, 8), "<M8[s]", 256)}, "an array of numbers, got datetime64"),
    ],
)
def test_archives_that_are_not_what_they_promise(tmp_path, method, files, message):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.npy", content)
    for read in (load_npz, lambda path: load_images(str(path))):
        with pytest.raises(ValueError, match=rf"^data.*: expected .*{message}[^\n]*$"):
            read(tmp_path / "x.npz")


@pytest.mark.parametrize("place", [6, 8])
def test_encrypted_and_unknown_archives_are_named(tmp_path, place):
    np.savez(file := tmp_path / "x.npz", images=ZEROS)
    content = bytearray(file.read_bytes())
    content[place] |= 1 if place == 6 else 99
    content[content.find(b"PK\x01\x02") + place + 2] |= 1 if place == 6 else 99
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"data: expected an .npz archive of plain arrays, got .*x.npz"):
        load_images(str(file))
