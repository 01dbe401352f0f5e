"""Imputers of other packages beside ours, with their defaults, on sets that scikit-learn ships: RMSE of lost cells.

Run ``python benchmarks/imputers.py`` (all), or ``python benchmarks/imputers.py wine mcar --only MIWAE --seeds 3``.
HyperImpute's rows are left out where it is not installed, or pandas is 3: under it some of its imputers silently leave
the means they begin with. It brings 9 GB of packages of its own, so install it apart,
``pip install --target SITE hyperimpute "pandas<3"``, and put SITE on PYTHONPATH. DiffPuter is not on PyPI;
ForestDiffusion, another imputer by diffusion, is, and has a row where it is installed.
Figures go to ``benchmarks/imputers.json``, which keeps what other calls wrote.

30 % of the cells are lost of columns standardised by all their values: completely at random, at random (by the first
column, which stays whole), or by their own value (logistic, large ones go).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from latentebm.files import write_json
from latentebm.missing import MIWAEImputer
from latentebm.missing.mechanisms import MAR, MCAR, Mechanism, SelfMasking, make_missing

RESULTS = Path(__file__).with_suffix(".json")
SETS = {"iris": load_iris, "wine": load_wine, "diabetes": load_diabetes, "cancer": load_breast_cancer}
MECHANISMS: dict[str, Mechanism] = {"mcar": MCAR(), "mar": MAR([0]), "mnar": SelfMasking("logistic")}
Impute = Callable[[np.ndarray, int], np.ndarray]


def by_sklearn(build: Callable[[int], object]) -> Impute:
    """An imputer of scikit-learn's manners."""
    return lambda X, seed: np.asarray(build(seed).fit_transform(X))


def by_hyperimpute(name: str) -> Impute:
    """A plugin of the package hyperimpute."""

    def impute(X: np.ndarray, seed: int) -> np.ndarray:
        from hyperimpute.plugins.imputers import Imputers
        from hyperimpute.utils.distributions import enable_reproducible_results

        enable_reproducible_results(seed)
        return np.asarray(Imputers().get(name).fit_transform(pd.DataFrame(X)))

    return impute


def by_forest_diffusion(X: np.ndarray, seed: int) -> np.ndarray:
    """Diffusion whose scores are gradient-boosted trees, with the settings of its documentation but 20 noise levels."""
    from ForestDiffusion import ForestDiffusionModel

    model = ForestDiffusionModel(
        X, n_t=20, duplicate_K=20, diffusion_type="vp", bin_indexes=[], cat_indexes=[], int_indexes=[], n_jobs=1,
        seed=seed,
    )  # fmt: skip
    return np.asarray(model.impute(k=1, X=X))


def forest(seed: int) -> IterativeImputer:
    """MissForest's scheme: chained random forests."""
    return IterativeImputer(RandomForestRegressor(50, random_state=seed), max_iter=5, random_state=seed)


METHODS: dict[str, Impute] = {
    "MIWAEImputer, defaults": by_sklearn(lambda seed: MIWAEImputer(random_state=seed)),
    "MIWAEImputer, Student-t": by_sklearn(lambda seed: MIWAEImputer(likelihood="student_t", random_state=seed)),
    "mean": by_sklearn(lambda seed: SimpleImputer()),
    "KNN (5)": by_sklearn(lambda seed: KNNImputer()),
    "MICE (BayesianRidge)": by_sklearn(lambda seed: IterativeImputer(random_state=seed)),
    "missForest-like (50 trees, 5 rounds)": by_sklearn(forest),
}
OTHERS = ("hyperimpute", "missforest", "miwae", "gain", "softimpute", "sinkhorn")


def main() -> None:
    """Parse, run, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join([*SETS, *MECHANISMS])}; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N − 1")
    parser.add_argument("--first", type=int, default=0, help="of these seeds, the first that is run")
    parser.add_argument("--only", nargs="*", default=[""], help="methods whose names hold one of these")
    words = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    runs = find_spec("hyperimpute") and pd.__version__ < "3"
    methods = METHODS | ({f"hyperimpute: {n}": by_hyperimpute(n) for n in OTHERS} if runs else {})
    methods |= {"ForestDiffusion (20 levels, 20 copies)": by_forest_diffusion} if find_spec("ForestDiffusion") else {}
    chosen = {name: method for name, method in methods.items() if any(w in name for w in words.only)}
    for data in [s for s in words.sets if s in SETS] or SETS:
        for mechanism in [m for m in words.sets if m in MECHANISMS] or MECHANISMS:
            for seed in range(words.first, words.seeds):
                keep(f"{data}, {mechanism}", seed, rows(data, mechanism, seed, chosen))
    show(json.loads(RESULTS.read_text(encoding="utf-8")))


def rows(data: str, mechanism: str, seed: int, methods: dict[str, Impute]) -> dict[str, float]:
    """RMSE of each method."""
    X = SETS[data]().data
    X = (X - X.mean(0)) / X.std(0)
    holed, mask = make_missing(X, MECHANISMS[mechanism], 0.3, random_state=seed)
    out = {}
    for name, method in methods.items():
        start = time.process_time()
        done = method(holed.copy(), seed)
        out[name] = float(np.square(done - X)[~mask].mean() ** 0.5)
        sys.stderr.write(f"{data} {mechanism} {seed} {name}: {out[name]:.4f} ({time.process_time() - start:.0f} s)\n")
    return out


def keep(problem: str, seed: int, found: dict[str, float]) -> None:
    """Add to the file what was found, beside what it holds."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name, value in found.items():
        results.setdefault(problem, {}).setdefault(name, {})[str(seed)] = value
    write_json(RESULTS, results)


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print mean ± sd over the seeds."""
    for problem, methods in results.items():
        print(f"\n{problem}")
        for name, seeds in methods.items():
            values = list(seeds.values())
            spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
            print(f"  {name:<45} {np.mean(values):.3f} ± {spread:.3f} ({len(values)} seeds)")


if __name__ == "__main__":
    main()
