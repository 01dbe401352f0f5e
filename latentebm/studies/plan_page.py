"""``plan.html``: how many reference images are worth collecting, from the rows of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from latentebm import plots
from latentebm.report.page import Page, drawn, render_page
from latentebm.report.run_tables import Table
from latentebm.report.words import OFF
from latentebm.studies.reopen import PANELS

__all__ = ["plan_figure", "plan_page"]

X_LABEL = "reference images per class"
WORTH = 0.01  # change of total variation below which more images are not worth collecting
HEAD = {
    "tv": "total variation",
    "frechet": "Fréchet distance",
    "coverage": "coverage",
    "ess": "ESS",
    "heldout_gain": "gain (nats)",
}


def plan_figure(table: pd.DataFrame, before: Mapping[str, Any]) -> Figure:
    """Balance, quality and weights over the size of the reference."""
    return plots.plot_study(table, "size", PANELS, before=before, title=_finding(table, before["tv"]), x_label=X_LABEL)


def plan_page(table: pd.DataFrame, before: Mapping[str, Any], figure: Figure, command: str = "") -> str:
    """The report of a plan, one page of HTML.

    Example:
        >>> rows = pd.DataFrame({"size": [5, 50], "seed": 0, "reliable": True, **{name: [0.2, 0.1] for name in HEAD}})
        >>> "5 reference images per class: " in plan_page(rows, {"tv": 0.3}, plan_figure(rows, {"tv": 0.3}))
        True
    """
    mean, sd = (getattr(table.groupby("size")[list(HEAD)], how)() for how in ("mean", "std"))
    enough = int(mean.index[(mean["tv"] <= mean["tv"].min() + WORTH).argmax()])
    tone = "good" if mean["tv"].min() <= OFF else "bad"
    words = ("Enough:", "Not enough:")[tone == "bad"]
    sentence = (
        f"{enough} reference images per class reach {mean.loc[enough, 'tv']:.3f}; none of the sizes comes more than "
        f"{WORTH} nearer to the target."
    )
    rows = [[str(n), *(_cell(mean.loc[n, c], sd.loc[n, c]) for c in HEAD)] for n in mean.index]
    alt = "; ".join(f"{n} images per class: total variation {mean.loc[n, 'tv']:.3f}" for n in mean.index)
    repeats = int(table.groupby("size").size().max())
    page = Page(
        title="latentebm: size of the reference",
        headline=_finding(table, before["tv"]),
        lead=f"The run's model, tilted to random parts of its reference, {repeats} of each size.",
        verdicts=[(tone, words, sentence)],
        finding=drawn(figure, alt, "Means over references of a size, bars of one standard deviation, a dot for each."),
        worries=_worries(table, mean, sd),
        tables=[Table("Sizes", "Mean ± sd over references of a size.", ["images per class", *HEAD.values()], rows)],
        command=command,
    )
    return render_page(page)


def _worries(table: pd.DataFrame, mean: pd.DataFrame, sd: pd.DataFrame) -> list[str]:
    trusted = table.groupby("size")["reliable"].mean()
    poor = [f"{n} ({100 * share:.0f} %)" for n, share in trusted.items() if share < 1]
    found = (
        [f"Sizes at which not every tilt had reliable weights, and their share that had: {', '.join(poor)}."]
        if poor
        else []
    )
    wide = [str(n) for n in mean.index if sd.loc[n, "tv"] > mean.loc[n, "tv"] / 2]
    if wide:
        found.append(f"Which images are in the reference matters much at: {', '.join(wide)} per class.")
    if sd["tv"].isna().any():
        found.append("With one reference of a size nothing says how much luck its choice is: pass --seeds 5.")
    return [
        *found,
        "The judge that reads the draws knows the run's labels; sizes above the run's own reference are not known.",
    ]


def _cell(mean: float, sd: float) -> str:
    return f"{mean:.3f}" if pd.isna(sd) else f"{mean:.3f} ± {sd:.3f}"


def _finding(table: pd.DataFrame, before: float) -> str:
    mean = table.groupby("size")["tv"].mean()
    small, large = mean.index[0], mean.index[-1]
    first = f"{small} reference images per class: TV {before:.3f} → {mean[small]:.3f}"
    return first if small == large else f"{first}; {large}: {mean[large]:.3f}"
