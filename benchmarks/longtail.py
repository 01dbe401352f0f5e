"""Ten classes with a long tail: class balance before and after the tilt, on MNIST and Fashion-MNIST.

    python benchmarks/longtail.py [--data mnist fashion-mnist] [--dims 2 10] [--ratio 50] [--seeds 0] [--epochs 40]
                                  [--json FILE]

Each line is one run of ``latentebm debias --classes all --proportions long-tail:RATIO``. Fashion-MNIST needs a network
or its files in a folder that ``--data-root`` names (``FashionMNIST/raw``, unpacked).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latentebm.files import write_json
from latentebm.settings.fields import Settings
from latentebm.workflow.judge import UnmadeError
from latentebm.workflow.run import debias

KEPT = ("shares", "tv", "tv_interval", "frechet", "coverage", "ess", "pareto_k", "heldout_gain", "reliable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion-mnist"])
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--ratio", type=float, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    found = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.is_file() else []
    for data in arguments.data:
        root = None if data == "mnist" else arguments.data_root
        for dim in arguments.dims:
            for seed in arguments.seeds:
                common = {"data": data, "dim": dim, "ratio": arguments.ratio, "seed": seed}
                common["epochs"] = arguments.epochs
                # A line measured again takes the place of the old one.
                found = [row for row in found if {k: row[k] for k in common} != common]
                try:
                    found.append({**common, **measure(root=root, **common)})
                except UnmadeError as refused:
                    print(refused, flush=True)
                    continue
                print(json.dumps(found[-1]), flush=True)
                if arguments.json:
                    write_json(arguments.json, found)
    print_table(found)


def measure(data: str, dim: int, ratio: float, seed: int, epochs: int, root: str | None) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            data=data,
            data_root=root,
            classes="all",
            proportions=f"long-tail:{ratio:g}",
            latent_dim=dim,
            seed=seed,
            epochs=epochs,
            out=f"{folder}/run",
        )
        metrics = debias(settings).metrics
    line = {side: {k: v for k, v in metrics[side].items() if k in KEPT} for side in ("untilted", "tilted")}
    counts = {side: metrics["data"][side] for side in ("biased", "reference")}
    accuracy, seconds = metrics["classifier"]["accuracy"], metrics["seconds"]["total"]
    return {**counts, **line, "accuracy": accuracy, "seconds": seconds}


def print_table(found: list[dict]) -> None:
    table = Table(
        title="Ten classes, exponential tail: total variation to uniform, smallest class share (uniform: 10 %)"
    )
    for head in (
        "data",
        "d",
        "seed",
        "epochs",
        "TV before",
        "TV after",
        "smallest before",
        "after",
        "ESS",
        "Fréchet",
        "seconds",
    ):
        table.add_column(head, justify="left" if head == "data" else "right")
    for row in found:
        before, after = row["untilted"], row["tilted"]
        table.add_row(
            row["data"],
            str(row["dim"]),
            str(row["seed"]),
            str(row["epochs"]),
            f"{before['tv']:.3f}",
            f"{after['tv']:.3f}",
            f"{100 * min(before['shares']):.1f} %",
            f"{100 * min(after['shares']):.1f} %",
            f"{100 * after['ess']:.0f} %",
            f"{before['frechet']:.0f} to {after['frechet']:.0f}",
            f"{row['seconds']:.0f}",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
