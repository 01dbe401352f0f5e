"""Imputation against published figures and classical methods: breast cancer (569 × 30), 5 seeds, mean ± sd.

Run ``python benchmarks/missing.py`` for everything (about half an hour on one core), or name parts:
``python benchmarks/missing.py mcar mnar --seeds 2``. Figures go to ``benchmarks/missing.json``, which keeps what other
parts and seeds wrote, and are printed as tables.

Errors are over the missing cells of the table standardised by its full columns, as in the papers:
MIWAE (Mattei and Frellsen, 2019), not-MIWAE (Ipsen, Mattei and Frellsen, 2021).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from missing_tilt import SETTINGS, cancer, error, images, tilt_one
from scipy.stats import t as student
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline

from latentebm.files import write_json
from latentebm.missing import MIWAEImputer, pool
from latentebm.missing.mechanisms import MAR, MCAR, ColumnDriven, SelfMasking, make_missing

HERE = Path(__file__).parent
RESULTS = HERE / "missing.json"
ONLY = ""  # part of a method's name, set by --only
Impute = Callable[[np.ndarray, int], np.ndarray]


def classical() -> dict[str, Impute]:
    """Mean, neighbours and chained equations by scikit-learn."""

    def by(build: Callable[[int], object]) -> Impute:
        return lambda X, seed: build(seed).fit_transform(X)

    def chained(model: Callable[[int], RegressorMixin], rounds: int) -> Impute:
        return by(lambda seed: IterativeImputer(model(seed), max_iter=rounds, random_state=seed))

    # Rounds of chained equations and trees are fewer than usual, to keep five seeds within minutes.
    return {
        "mean": by(lambda seed: SimpleImputer()),
        "KNN (5)": by(lambda seed: KNNImputer()),
        "iterative, BayesianRidge": by(lambda seed: IterativeImputer(random_state=seed)),
        "iterative, ExtraTrees (50 trees, 5 rounds)": chained(trees, 5),
        "iterative, best model per column (hyperimpute-like, 3 rounds)": chained(best_model, 3),
    }


def trees(seed: int) -> RegressorMixin:
    """Extremely randomised trees."""
    return ExtraTreesRegressor(50, random_state=seed)


def best_model(seed: int) -> RegressorMixin:
    """Linear model, neighbours or trees, whichever predicts a column best in 3-fold cross-validation."""
    models = [BayesianRidge(), KNeighborsRegressor(), ExtraTreesRegressor(20, random_state=seed)]
    return GridSearchCV(Pipeline([("model", models[0])]), {"model": models}, cv=3)


def deep(**settings: object) -> Impute:
    """The package's imputer with these settings."""
    return lambda X, seed: MIWAEImputer(random_state=seed, **settings).fit_transform(X)


ONE = {"members": 1, "width": 128, "k": 20}  # a single model, as published
MCAR_METHODS: dict[str, Impute] = classical() | {
    "MIWAE, Student-t (published .287)": deep(likelihood="student_t", steps=2000, **ONE),
    "five MIWAE, Student-t": deep(likelihood="student_t"),
}
# The linear decoder's steps are cheaper, and it takes more of them to carry the slope of the mask to its end.
# As published, the table comes standardised by its full columns, whose mean is the threshold of this mask.
KNOWN = ONE | {"latent_dim": 29, "steps": 2000, "lr": 3e-3, "standardize": False}
LINEAR = ONE | {"latent_dim": 29, "steps": 8000, "lr": 5e-3, "decoder": "linear", "standardize": False}
MNAR_METHODS: dict[str, Impute] = classical() | {
    "MIWAE (published 1.20)": deep(**ONE, latent_dim=29, steps=2000, standardize=False),
    "MIWAE, PPCA form": deep(**LINEAR | {"steps": 2000}),
    "not-MIWAE, agnostic": deep(**KNOWN, missing_model="agnostic"),
    "not-MIWAE, self-masking, unknown sign": deep(**KNOWN, missing_model="self-masking"),
    "not-MIWAE, self-masking known (published .76)": deep(**KNOWN, missing_model="self-masking-known"),
    "not-MIWAE, known, PPCA form (published .72)": deep(**LINEAR, missing_model="self-masking-known"),
}


def mcar(seed: int) -> dict[str, float]:
    """Half of all cells, chosen without replacement; MSE."""
    X = cancer()
    gone = np.random.default_rng(seed).choice(X.size, X.size // 2, replace=False)
    mask = np.ones(X.size, dtype=bool)
    mask[gone] = False
    return errors(X, mask.reshape(X.shape), MCAR_METHODS, seed, root=False)


def mnar(seed: int) -> dict[str, float]:
    """The first half of the columns missing above their mean; RMSE."""
    X = cancer()
    _, mask = make_missing(X, SelfMasking("hard", columns=range(15), intercept=0.0))
    return errors(X, mask, MNAR_METHODS, seed, root=True)


def errors(X: np.ndarray, mask: np.ndarray, methods: dict[str, Impute], seed: int, *, root: bool) -> dict[str, float]:
    """Error of each method over the missing cells."""
    out = {}
    for name, method in methods.items():
        if ONLY not in name:
            continue
        start = time.perf_counter()
        done = method(np.where(mask, X, np.nan), seed)
        out[name] = error(X, done, ~mask, root=root)
        say(f"seed {seed}  {name}: {out[name]:.4f}  ({time.perf_counter() - start:.0f} s)")
    return out


def tilt(seed: int) -> dict[str, float]:
    """A MIWAE of self-masked rows, tilted by a quarter of the rows, MCAR; RMSE on the self-masked rows."""
    out = {}
    for setting, (mechanism, decoder) in SETTINGS.items():
        if ONLY not in setting:
            continue
        for name, value in tilt_one(mechanism, decoder, seed).items():
            out[f"{setting}; {name}"] = value
            say(f"seed {seed}  {setting}; {name}: {value:.4f}")
    return out


MECHANISMS = {
    "MCAR": MCAR(),
    "MAR": MAR([0]),
    "self-masking, hard": SelfMasking("hard"),
    "self-masking, probit": SelfMasking("probit"),
    "self-masking, logistic": SelfMasking("logistic"),
    "column-driven": ColumnDriven(0),
}


def amputation(seed: int) -> dict[str, float]:
    """A million rows by 50 columns: seconds, and peak memory over the table's own, each in its own process."""
    out = {}
    for name in MECHANISMS:
        words = [sys.executable, __file__, "--ampute-once", name, "--seed", str(seed)]
        seconds, memory = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        out |= {f"{name}: seconds": seconds, f"{name}: memory / table": memory}
        say(f"seed {seed}  {name}: {seconds:.1f} s, {memory:.2f} times the table")
    return out


def ampute_once(name: str, seed: int) -> None:
    """Ampute once in this process and print seconds and memory."""
    rng = np.random.default_rng(seed)
    X = np.empty((1_000_000, 50))
    for start in range(0, len(X), 10_000):
        X[start : start + 10_000] = rng.normal(size=(10_000, 50))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    make_missing(X, MECHANISMS[name], 0.3, random_state=seed)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    # What the call adds, plus the table itself.
    sys.stdout.write(json.dumps([seconds, 1 + grown / X.nbytes]))


SMALL = {"latent_dim": 1, "decoder": "linear", "width": 16, "k": 10, "steps": 200, "lr": 0.03, "draws": 200}


def coverage(seed: int, tables: int = 40, m: int = 20) -> dict[str, float]:
    """Of 40 tables, 60 × 3, 70 % of a column lost at random: how many 95 % intervals hold its true mean, 0."""
    held = {"copies of refitted models": 0, "copies of one model": 0, "true values": 0}
    for table in range(tables):
        rng = np.random.default_rng([seed, table])
        X = 0.8**0.5 * rng.normal(size=(60, 1)) + 0.2**0.5 * rng.normal(size=(60, 3))
        holed = X.copy()
        holed[rng.permutation(60)[:42], 2] = np.nan
        imputer = MIWAEImputer(**SMALL, random_state=table).fit(holed)
        for name, proper in (("copies of refitted models", True), ("copies of one model", False)):
            columns = np.array([copy[:, 2] for copy in imputer.multiple(holed, m, proper=proper)])
            pooled = pool(columns.mean(1), columns.var(1, ddof=1) / 60, df=59)
            held[name] += bool(pooled.low < 0 < pooled.high)
        half = student.ppf(0.975, 59) * X[:, 2].std(ddof=1) / 60**0.5
        held["true values"] += bool(abs(X[:, 2].mean()) < half)
        say(f"seed {seed}  {table + 1} tables: {held}")
    return {name: count / tables for name, count in held.items()}


PARTS: dict[str, Callable[[int], dict[str, float]]] = {
    "mcar": mcar,
    "mnar": mnar, "tilt": tilt, "images": images, "amputation": amputation,
    "coverage": coverage,
}  # fmt: skip


def say(line: str) -> None:
    """Progress, apart from the tables."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print mean ± sd over the seeds."""
    for part, runs in results.items():
        print(f"\n{part} ({len(runs)} seeds): {(PARTS[part].__doc__ or '').strip()}")
        for name in dict.fromkeys(name for run in runs.values() for name in run):
            values = [run[name] for run in runs.values() if name in run]
            spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
            print(f"  {name:<70} {np.mean(values):8.4f} ± {spread:.4f}")


def main() -> None:
    """Parse, run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 … N − 1")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--only", default="", help="methods or settings whose name holds this, of mcar, mnar and tilt")
    parser.add_argument("--ampute-once", choices=MECHANISMS, help=argparse.SUPPRESS)
    words = parser.parse_args()
    global ONLY
    ONLY = words.only
    torch.set_num_threads(1)
    if words.ampute_once:
        ampute_once(words.ampute_once, words.seed)
        return
    warnings.simplefilter("ignore", ConvergenceWarning)
    for part in words.parts or PARTS:
        for seed in range(words.seeds) if words.seed is None else [words.seed]:
            found = PARTS[part](seed)
            # Read late: another part may have been written meanwhile.
            results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
            results.setdefault(part, {}).setdefault(str(seed), {}).update(found)
            write_json(RESULTS, results)
    show(results)


if __name__ == "__main__":
    main()
