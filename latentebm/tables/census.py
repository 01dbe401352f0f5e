"""A small synthetic census whose shares, parity gap and best weights are known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from latentebm.checks import check_int

__all__ = ["CENSUS", "census_truth", "synthetic_census"]

# P(sex = F), P(occupation | sex), and P(income = high | sex, occupation), sexes F and M.
CENSUS: dict[str, Any] = {
    "female": 0.4,
    "occupations": ("care", "office", "trade"),
    "occupation": {"F": (0.5, 0.4, 0.1), "M": (0.1, 0.4, 0.5)},
    "high": {"F": (0.05, 0.2, 0.15), "M": (0.15, 0.4, 0.3)},
}
HOURS = {"F": 34.0, "M": 41.0}  # mean hours a week of part of the workers; the others work 40 exactly
FULL_TIME = 0.45  # share of those who work 40 hours
MISSING = 0.1  # share of the years of schooling that are missing


def synthetic_census(n: int, *, seed: int) -> pd.DataFrame:
    """Rows of an invented population: sex, occupation, income, hours, years of schooling, capital gain, hired date.

    Sex is a category, hours are whole with a spike at 40, a tenth of the years are missing, capital gains are zero but
    for a heavy tail, and dates count days. `census_truth` has the exact shares.

    Example:
        >>> table = synthetic_census(20_000, seed=0)
        >>> high = (table["income"] == "high").groupby(table["sex"], observed=True).mean()
        >>> round(float(high["M"] - high["F"]), 2), round(census_truth()["gap"], 3)
        (0.2, 0.205)
    """
    rng = np.random.default_rng(check_int("seed", seed, low=0))
    check_int("n", n)
    sex = np.where(rng.random(n) < CENSUS["female"], "F", "M")
    female, u = sex == "F", rng.random(n)
    ends = {s: np.cumsum(p) for s, p in CENSUS["occupation"].items()}
    number = np.where(female, np.searchsorted(ends["F"], u), np.searchsorted(ends["M"], u)).clip(max=2)
    p_high = np.where(female, np.take(CENSUS["high"]["F"], number), np.take(CENSUS["high"]["M"], number))
    high = rng.random(n) < p_high
    mean = np.where(female, HOURS["F"], HOURS["M"]) + 3 * high
    hours = np.where(rng.random(n) < FULL_TIME, 40, np.clip(rng.normal(mean, 8), 1, 99)).round().astype(np.int64)
    years = pd.array(np.clip(rng.normal(11 + 2 * high, 2), 4, 20).round().astype(np.int64), dtype="Int64")
    years[rng.random(n) < MISSING] = pd.NA
    gain = np.where(rng.random(n) < 0.1 + 0.2 * high, np.round(rng.lognormal(8, 1, n), 2), 0.0)
    days = rng.integers(0, 9000, n).astype("timedelta64[D]")
    return pd.DataFrame(
        {
            "sex": pd.Categorical(sex, categories=["F", "M"]),
            "occupation": np.take(CENSUS["occupations"], number),
            "hours": hours,
            "years": years,
            "gain": gain,
            "hired": pd.Series(np.datetime64("2000-01-01") + days).astype("datetime64[s]"),
            "income": np.where(high, "high", "low"),
        }
    )


def census_truth() -> dict[str, Any]:
    r"""Exact shares of the census, and what parity of income by sex costs.

    .. math:: w(y, a) = \frac{P(y) P(a)}{P(y, a)}, \quad \mathrm{ESS} = \Big(\sum_{y,a} P(y, a)\, w^2\Big)^{-1},
              \quad \mathrm{KL} = \sum_{y,a} P(y) P(a) \log w

    Returns:
        ``joint`` P(income, sex), ``high`` P(high), ``gap`` P(high | M) − P(high | F), ``ess`` (share) and ``kl``
        (nats) of the parity weights.

    Example:
        >>> truth = census_truth()
        >>> round(truth["high"], 4), round(truth["ess"], 3)
        (0.243, 0.93)
    """
    share = {"F": CENSUS["female"], "M": 1 - CENSUS["female"]}
    high = {s: float(np.dot(CENSUS["occupation"][s], CENSUS["high"][s])) for s in share}
    whole = sum(share[s] * high[s] for s in share)
    joint = {(y, s): share[s] * (high[s] if y == "high" else 1 - high[s]) for y in ("high", "low") for s in share}
    wanted = {(y, s): share[s] * (whole if y == "high" else 1 - whole) for y, s in joint}
    weight = {cell: wanted[cell] / joint[cell] for cell in joint}
    return {
        "joint": joint,
        "high": whole,
        "gap": high["M"] - high["F"],
        "ess": 1 / sum(joint[c] * weight[c] ** 2 for c in joint),
        "kl": sum(wanted[c] * np.log(weight[c]) for c in joint),
    }
