"""The rows of longtail.py as Markdown: every method side by side, then what was varied.

    python benchmarks/longtail_tables.py [--json FILE]

Means over seeds, with their standard deviation where there are several. Seeds are named where they are not all five.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

# Side by side: name of the method in the rows, name in the tables.
METHODS = {
    "both, then the tilt": "VAE of both sets, then the tilt (default)",
    "frozen, then the tilt": "VAE of the biased set, then the tilt",
    "fine-tuned": "fine-tuned on the reference",
    "reference only": "trained on the reference alone",
    "oversampled": "oversampled union",
    "importance-weighted": "importance-weighted union",
    "likelihood-free weights": "likelihood-free weights",
    "untilted": "untilted",
    "conditional (oracle)": "*conditional VAE with labels (oracle)*",
    "real images held out": "*control: real images held out*",
    "the same, reconstructed": "*control: the same, reconstructed by the biased VAE*",
}
DATA = {"mnist:50": "MNIST, 50:1", "mnist:100": "MNIST, 100:1", "fashion-mnist:50": "Fashion-MNIST, 50:1"}
SIZES = (10, 25, 100)
SEEDS = 5
OVERVIEWS = {"tv_meant": ("TV, as meant", 3), "copied": ("Copied", 2), "ess": ("ESS", 2)}
COLUMNS = {"tv": 3, "tv_meant": 3, "frechet": 0, "frechet_fixed": 4, "copied": 2, "ess": 2}

Rows = list[dict]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("longtail.jsonl"))
    print(tables(read(parser.parse_args().json)))


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def tables(rows: Rows) -> str:
    """A table of balance and quality for each data set, three over all of them, and one of all else."""
    parts = [side_by_side(rows, data) for data in DATA if any(row["data"] == data for row in rows)]
    parts += [overview(rows, name, *shown) for name, shown in OVERVIEWS.items()]
    return "\n\n".join([*parts, varied([row for row in rows if row["method"] not in METHODS])])


def side_by_side(rows: Rows, data: str) -> str:
    """TV ± sd / Fréchet distance of every method, by images per class; the best without labels in bold."""
    known = {kind: picked(rows, data, *kind) for kind in ((size, method) for size in SIZES for method in METHODS)}
    free = [method for method, name in METHODS.items() if not name.startswith("*")]
    best = {
        (size, name): min((mean(known[size, m], name) for m in free if known[size, m]), default=None)
        for size in SIZES
        for name in ("tv", "frechet")
    }

    def cell(size: int, method: str) -> str:
        group = known[size, method]
        if not group:
            return "–"
        shown = {"tv": spread(group, "tv", 3), "frechet": number(mean(group, "frechet"), 0)}
        first = [name for name in shown if method in free and mean(group, name) == best[size, name]]
        return " / ".join(f"**{text}**" if name in first else text for name, text in shown.items()) + fewer(group)

    head = f"| {DATA[data]}: TV / Fréchet distance | " + " | ".join(f"{size} per class" for size in SIZES) + " |"
    return wide(head, len(SIZES), lambda method: [cell(size, method) for size in SIZES])


def overview(rows: Rows, name: str, title: str, digits: int) -> str:
    """The means of one number of every method, with few images per class, more and most."""
    sizes = ", ".join(map(str, SIZES))
    head = f"| {title} | " + " | ".join(f"{data}: {sizes} per class" for data in DATA.values()) + " |"

    def cell(data: str, method: str) -> str:
        groups = [[row for row in picked(rows, data, size, method) if row[name] is not None] for size in SIZES]
        means = [number(mean(group, name), digits) if group else "–" for group in groups]
        return ", ".join(means) if any(groups) else "–"

    return wide(head, len(DATA), lambda method: [cell(data, method) for data in DATA])


def wide(head: str, columns: int, line: Callable[[str], list[str]]) -> str:
    """A line for every method of which there is a number."""
    body = {name: line(method) for method, name in METHODS.items()}
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in body.items() if set(cells) != {"–"}]
    return "\n".join([head, "|---" * (columns + 1) + "|", *lines])


def varied(rows: Rows) -> str:
    """One line for each data set, size and method."""
    head = "| data | per class | method | TV | as meant | Fréchet | fixed features | copied | ESS | seeds |"
    kinds = sorted({(r["data"], r["size"], r["method"]) for r in rows})
    lines = []
    for data, size, method in kinds:
        group = picked(rows, data, size, method)
        cells = [DATA.get(data, data), str(size), method, *(spread(group, *each) for each in COLUMNS.items())]
        lines.append(f"| {' | '.join([*cells, seeds(group)])} |")
    return "\n".join([head, "|---" * 10 + "|", *lines])


def picked(rows: Rows, data: str, size: int, method: str) -> Rows:
    return [row for row in rows if (row["data"], row["size"], row["method"]) == (data, size, method)]


def mean(group: Rows, name: str) -> float:
    return statistics.fmean(row[name] for row in group)


def number(value: float, digits: int) -> str:
    shown = f"{round(value, digits) + 0.0:.{digits}f}"  # no minus before a zero
    return shown.replace("0.", ".", 1) if digits and abs(value) < 1 else shown


def spread(group: Rows, name: str, digits: int) -> str:
    values = [row[name] for row in group if row[name] is not None]
    if not values:
        return "–"
    shown = number(statistics.fmean(values), digits)
    return f"{shown} ± {number(statistics.stdev(values), digits)}" if len(values) > 1 else shown


def seeds(group: Rows) -> str:
    found = sorted(row["seed"] for row in group)
    whole = len(found) > 2 and found == list(range(found[0], found[-1] + 1))
    return f"{found[0]}–{found[-1]}" if whole else ", ".join(map(str, found))


def fewer(group: Rows) -> str:
    """Which seeds, where they are not all."""
    return f" (seed{'s' * (len(group) > 1)} {seeds(group)})" if 0 < len(group) < SEEDS else ""


if __name__ == "__main__":
    main()
