"""Peak memory of a fit to images on disk and of streamed draws, over that of the process before it begins.

``python benchmarks/memory.py`` makes 200,000 images of 3 × 64 × 64 (2.5 GB) in a temporary folder, fits a small
model to them from a mapped .npy, then streams 1,000,000 draws of 28 × 28 to disk. What counts is the proportional
resident size of the process and of its children (Linux), looked at every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from latentebm import Debiaser, stream_samples

HERE = Path(__file__).resolve().parent


def resident() -> float:
    """MB of the process and of its children: private pages, and their part of those shared with others."""
    children = Path("/proc/self/task").glob("*/children")
    pids = ["self", *(pid for file in children for pid in file.read_text().split())]
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@contextmanager
def peak(row: dict):
    begin, row["peak_mb"], done = resident(), 0.0, threading.Event()

    def watch():
        while not done.wait(0.05):
            row["peak_mb"] = max(row["peak_mb"], resident())

    thread, start = threading.Thread(target=watch), time.perf_counter()
    thread.start()
    yield
    done.set()
    thread.join()
    row |= {"before_mb": begin, "growth_mb": row["peak_mb"] - begin, "seconds": time.perf_counter() - start}


def write_images(path: Path, n: int) -> None:
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 3, 64, 64))
    rng = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        coarse = rng.integers(0, 256, (min(10_000, n - start), 3, 8, 8), dtype=np.uint8)
        array[start : start + len(coarse)] = coarse.repeat(8, 2).repeat(8, 3)
    array.flush()


def fit_from_disk(folder: Path, n: int, references: int) -> dict:
    write_images(folder / "x.npy", n)
    images, row = np.load(folder / "x.npy", mmap_mode="r"), {"images": n, "references": references}
    model = Debiaser(latent_dim=8, width=32, epochs=1, folds=2, tilt_steps=20, clusters=20 if references < 1000 else 0)
    wanted = np.array(images[:references])
    with peak(row):
        model.fit(images, wanted)
    (folder / "x.npy").unlink()
    return row


def stream(folder: Path, n: int) -> dict:
    images = np.random.default_rng(0).random((500, 28, 28))
    model, row = Debiaser(epochs=1, folds=5, tilt_steps=20, clusters=0).fit(images, images[:100]), {"draws": n}
    with peak(row):
        stream_samples(model, n, folder / "many")
    row["files"] = len(list((folder / "many").glob("*.npz")))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--draws", type=int, default=1_000_000)
    arguments = parser.parse_args()
    found = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        for name, work in (
            ("fit", (fit_from_disk, Path(folder), arguments.images, 2_000)),
            ("fit, small reference", (fit_from_disk, Path(folder), arguments.images, 100)),
            ("draws", (stream, Path(folder), arguments.draws)),
        ):
            # Each in a process of its own: memory that one has left over would serve the next.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                found[name] = fresh.submit(*work).result()
            print(name, json.dumps(found[name]), flush=True)
    (HERE / "memory.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
