"""The data files that come with the package, found and checked by SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from latentebm.checks import check_choice
from latentebm.files import sha256

__all__ = ["FOLDERS", "SHIPPED", "UNPACKED", "shipped_file"]

SHIPPED = {
    "MNIST/raw/train-images-idx3-ubyte.gz": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "MNIST/raw/train-labels-idx1-ubyte.gz": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "MNIST/raw/t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "MNIST/raw/t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
    "default.csv": "d113590204485565bdd692b2d8430e7c2fcc72ec323df92314a745c99a0eefe9",
}
# Of the same files without their compression.
UNPACKED = {
    "MNIST/raw/train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "MNIST/raw/train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "MNIST/raw/t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def _folders() -> tuple[Path, ...]:
    """Where the files can be: beside the package in a checkout, or in the wheel ``latentebm-data``."""
    wheel = find_spec("latentebm_data")  # a folder without code
    places = [] if wheel is None else [Path(place) for place in wheel.submodule_search_locations or []]
    return (Path(__file__).resolve().parents[2] / "data", *places)


FOLDERS = _folders()


def shipped_file(name: str, folders: Sequence[Path] = FOLDERS) -> Path:
    """Path of the first file of a name of `SHIPPED` in some folders, its bytes checked; OSError where there is none.

    Example:
        >>> shipped_file("default.csv").read_text().splitlines()[0]
        'default,student,balance,income'
    """
    check_choice("name", name, SHIPPED)
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        looked, fix = " or ".join(map(str, folders)), 'pip install "latentebm[data]", or in a clone pip install ./data'
        raise FileNotFoundError(
            f"data: expected {name} in {looked} or in the package latentebm-data, found none; {fix}"
        )
    if sha256(path) != SHIPPED[name]:
        raise OSError(f"{path}: expected SHA-256 {SHIPPED[name]}, got {sha256(path)}; restore the file")
    return path
