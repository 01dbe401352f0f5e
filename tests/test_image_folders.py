"""Folders of image files: resized, flat, with links and pipes, and as a reference."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from latentebm.data.images import load_images
from latentebm.settings.fields import Settings
from latentebm.workflow.problem import pose


def picture(path, size=(8, 8), value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def test_resize_makes_one_size_of_many(tmp_path):
    picture(tmp_path / "a/1.png", (8, 6))
    picture(tmp_path / "b/1.png", (5, 9), 200)
    with pytest.raises(ValueError, match=r"data: expected images of one size, .*; pass resize=64"):
        load_images(str(tmp_path))
    data = load_images(str(tmp_path), resize=4)
    assert data.images.shape == (2, 1, 4, 4)
    assert data.images.flatten(1).float().mean(1).tolist() == [90, 200]
    np.savez(tmp_path / "x.npz", images=np.full((3, 8, 8), 7, np.uint8))
    assert load_images(str(tmp_path / "x.npz"), resize=2).images.unique().tolist() == [7]
    with pytest.raises(ValueError, match="resize: expected"):
        load_images("mnist", train=False, resize=0)


def test_hidden_files_are_skipped_and_empty_classes_named(tmp_path):
    picture(tmp_path / "a/1.png")
    picture(tmp_path / "a/.1.png", (3, 3))
    picture(tmp_path / ".cache/1.png", (3, 3))
    assert load_images(str(tmp_path)).class_names == ("a",)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="got no image in b; add some"):
        load_images(str(tmp_path))


def test_circles_of_links_and_pipes_end_with_their_name(tmp_path):
    picture(tmp_path / "a/1.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"folders that do not hold themselves, got a link from .*a/up"):
        load_images(str(tmp_path))
    (tmp_path / "a/up").unlink()
    os.mkfifo(tmp_path / "a/2.png")
    with pytest.raises(ValueError, match=r"got 1 that cannot: .*2.png \(no regular file\)"):
        load_images(str(tmp_path))


def test_a_flat_folder_is_a_reference(tmp_path):
    for i in range(3):
        picture(tmp_path / f"data/{i}.png", (8, 8), 10 * i)
        picture(tmp_path / f"fair/{i}.png", (9, 9), 10 * i)
    asked = {"data": str(tmp_path / "data"), "reference": str(tmp_path / "fair")}
    problem = pose(Settings(**asked, resize=8), torch.Generator())
    assert problem.biased.images.shape == problem.reference.images.shape == (3, 1, 8, 8)
    with pytest.raises(ValueError, match=r"reference: expected images of the data's shape, .*; pass resize"):
        pose(Settings(**asked), torch.Generator())
    with pytest.raises(FileNotFoundError, match="reference: expected a file or folder"):
        pose(Settings(**asked | {"reference": "none"}), torch.Generator())
