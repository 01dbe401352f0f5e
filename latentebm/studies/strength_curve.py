"""Balance and quality over the strength of a tilt."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentebm import plots
from latentebm.checks import check_int
from latentebm.disk.walk import walked
from latentebm.evaluation.metrics import NEIGHBOURS
from latentebm.plots.style import Place
from latentebm.progress import Track, silent
from latentebm.studies.reopen import PANELS, OpenRun

__all__ = ["STRENGTHS", "plot_strength", "strength_curve"]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def strength_curve(
    opened: OpenRun,
    *,
    strengths: Sequence[float] = STRENGTHS,
    samples: int = 5000,
    seeds: int = 1,
    track: Track = silent,
) -> pd.DataFrame:
    r"""Judge draws of :math:`p_\lambda \propto e^{-\lambda E} p_0` for several λ.

    .. math:: \lambda \mapsto (\mathrm{TV}, \text{Fréchet}, \text{coverage}, \mathrm{ESS})

    One row per strength in [0, 1.5] and seed, of so many `samples` each: ``strength``, ``seed``, ``tv``, ``frechet``,
    ``density``, ``coverage``, and ``ess`` as a share of the pool.
    """
    check_int("samples", samples, low=NEIGHBOURS + 1)
    check_int("seeds", seeds)
    jobs = [(strength, seed) for strength in strengths for seed in range(seeds)]
    model = copy.copy(opened.model).set_params(sampler="snis")  # which knows the ESS, whatever the run drew by

    def judged(job: tuple[float, int]) -> dict[str, float]:
        strength, seed = job
        draws = model.sample(samples, strength=strength, seed=seed)
        found = opened.judge(draws.x).as_dict()
        kept = {name: found[name] for name in ("tv", "frechet", "density", "coverage")}
        return {"strength": strength, "seed": seed, **kept, "ess": draws.diagnostics["ess"]}

    def known() -> list[Tensor]:
        weights = [*model.vae_.state_dict().values(), *model.energy_.state_dict().values()]
        return [*weights, torch.tensor([*strengths, samples, seeds])]

    return pd.DataFrame(walked(judged, jobs, "strength", known, track=track))


def plot_strength(table: pd.DataFrame, title: str = "", *, ax: Place = None) -> Figure:
    """Draw the rows that `strength_curve` gave; the title says where balance is best, by default.

    Example:
        >>> table = pd.DataFrame({"strength": [0, 1], "tv": [0.2, 0.0], **{c: [1, 2] for c in ("frechet", "coverage")}})
        >>> plot_strength(table.assign(ess=[1.0, 0.5])).get_suptitle()
        'Balance is best at strength 1, where the ESS is 50 %'
    """
    mean = table.groupby("strength")[["tv", "ess"]].mean()
    best = mean["tv"].idxmin()
    found = f"Balance is best at strength {best:g}, where the ESS is {100 * mean.loc[best, 'ess']:.0f} %"
    return plots.plot_study(table, "strength", PANELS, before={}, title=title or found, x_label="strength λ", ax=ax)
