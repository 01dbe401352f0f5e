"""Adult, debiased to parity: ours, CTGAN's TVAE tilted as it is, TabFairGDT, and reweighed real rows, side by side.

Run ``python benchmarks/tables.py`` for everything that installs (``pip install ctgan tabfairgdt``), or ``--parts ours
--seeds 2``. Figures go to ``benchmarks/tables.json``, which keeps what other parts and seeds wrote, and are printed.

UCI Adult (B. Becker, R. Kohavi; CC BY 4.0) is fetched by ``pip download fairness==0.1.8``, whose wheel holds it, or
read from a wheel that is there already (``--wheel``). A third of the rows is held out. Synthetic tables have as many
rows as the training table. AUC and accuracy are those of gradient boosting trained on synthetic and tested on held-out
rows; marginal TV and association are distances to held-out rows.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split

from latentebm import Parity, TableDebiaser, from_ctgan
from latentebm.files import write_json
from latentebm.tables.judged.table_measures import (
    association_distance,
    marginal_distances,
    mean_distance,
    nearness,
    parity_gap,
)
from latentebm.tables.judged.utility import train_on_made

RESULTS = Path(__file__).parent / "tables.json"
INSIDE = "fairness/data/raw/adult.csv"
LABEL, GROUP = "income-per-year", "sex"
PARTS = ("ours", "tvae", "tabfairgdt", "reweighing")
SPEED = 100_000  # rows drawn for the time


def adult(wheel: str | None) -> pd.DataFrame:
    """The 32,561 rows of Adult's training file, unknown cells missing."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder, "fairness==0.1.8"]
            subprocess.run(command, check=True)
            wheel = str(next(Path(folder).glob("*.whl")))
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read(INSIDE)
    return pd.read_csv(io.BytesIO(text), na_values="?", skipinitialspace=True)


def judge(made: pd.DataFrame, train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, float]:
    """Every measure of a synthetic table."""
    distances = marginal_distances(test, made)
    return {
        "gap": parity_gap(made, LABEL, GROUP).value,
        **{f"classifier_{k}": v for k, v in train_on_made(made, test, LABEL, by=GROUP, seed=seed).items()},
        "marginals": mean_distance(distances, [LABEL, GROUP]),
        "association": association_distance(test, made),
        **nearness(train, test, made, seed=seed),
    }


def both(model: TableDebiaser, train: pd.DataFrame, test: pd.DataFrame, seed: int, name: str) -> dict[str, dict]:
    """The model's rows before and after the tilt."""
    rows = {f"{name}, untilted": judge(model.sample_prior(len(train)), train, test, seed)}
    start = time.perf_counter()
    try:
        model.fit_tilt()
    except ValueError as error:
        return rows | {f"{name}, parity": {"refused": str(error)}}
    seconds = time.perf_counter() - start
    made = model.sample(len(train))
    found = judge(made, train, test, seed) | {k: float(v) for k, v in model.weigh().items() if k in ("ess", "kl")}
    start, used = time.perf_counter(), time.process_time()
    model.sample(SPEED)
    speed = {"draw_seconds": time.perf_counter() - start, "draw_cpu_seconds": time.process_time() - used}
    rare = conditioned(model, "rare", {LABEL: ">50K", GROUP: "Female"})
    late = conditioned(model, "late", {"occupation": "Tech-support", "age": pd.Interval(50, 60)})
    return rows | {f"{name}, parity": found | {"tilt_seconds": seconds} | speed | rare | late}


def conditioned(model: TableDebiaser, name: str, where: dict[str, Any]) -> dict[str, Any]:
    """How well rows of a condition come."""
    try:
        attrs = model.sample(2000, where=where).attrs
    except ValueError as error:
        return {f"{name}_refused": str(error)}
    return {f"{name}_ess": attrs["ess"], f"{name}_generated": attrs["generated"]}


def ours(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, dict]:
    """The package's model of rows."""
    start, used = time.perf_counter(), time.process_time()
    model = TableDebiaser(Parity(LABEL, by=GROUP), seed=seed).fit_model(train)
    fit = {"fit_seconds": time.perf_counter() - start, "fit_cpu_seconds": time.process_time() - used}
    rows = both(model, train, test, seed, "ours")
    rows["ours, untilted"] |= fit
    return rows


def filled(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with the text "?" for missing categories, which the other packages need, and its text columns."""
    text = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    return table.assign(**{c: table[c].astype(object).fillna("?") for c in text}), text


def tvae(train: pd.DataFrame, test: pd.DataFrame, seed: int, epochs: int) -> dict[str, dict]:
    """CTGAN's TVAE, read as a function of its code by `from_ctgan`."""
    from ctgan import TVAE

    (known, text), (unseen, _) = filled(train), filled(test)
    np.random.seed(seed)
    torch.manual_seed(seed)
    start, used = time.perf_counter(), time.process_time()
    synthesizer = TVAE(epochs=epochs, cuda=False)
    synthesizer.fit(known, text)
    fit = {"fit_seconds": time.perf_counter() - start, "fit_cpu_seconds": time.process_time() - used, "epochs": epochs}
    model = TableDebiaser(Parity(LABEL, by=GROUP), model=from_ctgan(synthesizer), seed=seed).fit_model(known)
    rows = both(model, known, unseen, seed, "TVAE")
    rows["TVAE, untilted"] |= fit
    return rows


def tabfairgdt(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, dict]:
    """Decision trees whose leaves are relabelled to parity (Panagiotou et al., 2025), without and with all of it."""
    from tabfairgdt import TABFAIRGDT

    (known, text), (unseen, _) = filled(train), filled(test)
    # Text as objects: of pandas categories version 0.1.1 drops another one when it draws than when it was fitted.
    kinds = {c: "category" if c in text else "int" for c in known}
    rows = {}
    for name, strength in (("TabFairGDT, λ = 0", 0.0), ("TabFairGDT, λ = 1", 1.0)):
        start, used = time.perf_counter(), time.process_time()
        model = TABFAIRGDT(protected_attribute=GROUP, target=LABEL, dtype_map=kinds, seed=seed, parallel=False)
        model.fit(known.copy(), lamda=strength)
        fit = {"fit_seconds": time.perf_counter() - start, "fit_cpu_seconds": time.process_time() - used}
        made = model.generate(len(known)).astype(dict.fromkeys(text, object))
        rows[name] = judge(made, known, unseen, seed) | fit
    return rows


def reweighing(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, dict]:
    """Real rows, and real rows drawn again with weights P(y) P(a) / P(y, a) (Kamiran and Calders, 2012)."""
    counts = train.groupby([LABEL, GROUP])[LABEL].transform("size").to_numpy() * len(train)
    parts = [train.groupby(c)[c].transform("size").to_numpy() for c in (LABEL, GROUP)]
    weight = parts[0] * parts[1] / counts
    again = train.sample(len(train), replace=True, weights=weight, random_state=seed)
    ess = float(weight.sum() ** 2 / (weight**2).sum() / len(weight))
    return {
        "real rows": judge(train, train, test, seed),
        "real rows, reweighed": judge(again, train, test, seed) | {"ess": ess},
    }


def show(found: dict[str, dict[str, dict]]) -> None:
    """Means over seeds."""
    names = [
        "gap",
        "classifier_accuracy",
        "classifier_auc",
        "classifier_gap",
        "marginals",
        "association",
        "nearer",
        "ess",
    ]
    names += ["fit_cpu_seconds", "draw_cpu_seconds"]
    print(f"{'':24}" + "".join(f"{n.replace('classifier_', 'cl. ').replace('_seconds', ' s')[:11]:>12}" for n in names))
    for row, seeds in found.items():
        means = [
            np.mean([s[n] for s in seeds.values()]) if all(n in s for s in seeds.values()) else None for n in names
        ]
        print(
            f"{row:24}" + "".join(f"{'–' if m is None else f'{m:.3f}':>12}" for m in means) + f"   {len(seeds)} seeds"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--epochs", type=int, default=300, help="of TVAE, whose default this is")
    parser.add_argument("--wheel", help="wheel of fairness 0.1.8 that is there already")
    options = parser.parse_args()
    table = adult(options.wheel)
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for seed in range(options.first, options.first + options.seeds):
        train, test = train_test_split(table, test_size=1 / 3, random_state=seed)
        train, test = train.reset_index(drop=True), test.reset_index(drop=True)
        for part in options.parts:
            extra = {"epochs": options.epochs} if part == "tvae" else {}
            try:
                rows = globals()[part](train, test, seed, **extra)
            except ImportError as error:
                print(f"{part}: left out, {error}; pip install ctgan tabfairgdt")
                continue
            for name, row in rows.items():
                found.setdefault(name, {})[str(seed)] = row | {
                    "threads": torch.get_num_threads(),
                    "cpus": os.cpu_count(),
                }
            write_json(RESULTS, found)
    show(found)


if __name__ == "__main__":
    main()
