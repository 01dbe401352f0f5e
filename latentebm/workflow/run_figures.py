"""The figures of a run, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from latentebm import plots
from latentebm.chunks import in_chunks
from latentebm.debiaser import Debiaser
from latentebm.evaluation.judges import Classifier
from latentebm.plots.lettering import verbatim
from latentebm.report.words import as_read, course, shown
from latentebm.sampling import Draws
from latentebm.workflow.problem import Problem

__all__ = ["run_figures", "shares_figure"]

SHOWN = 64  # images per grid
POINTS = 2000  # points per scatter plot


def run_figures(
    problem: Problem,
    model: Debiaser,
    prior: Draws,
    tilted: Draws,
    metrics: Mapping[str, Any],
    generator: torch.Generator,
    classifier: Classifier | None = None,
) -> dict[str, Figure]:
    """Every figure the run's data allow.

    Arguments:
        problem: the arrays of the run.
        model: the fitted debiaser.
        prior: untilted draws.
        tilted: tilted draws.
        metrics: the numbers of ``metrics.json``.
        generator: source of the points shown.
        classifier: that sorts the tilted draws by class for a grid of each, or None.
    """
    device = next(model.vae_.parameters()).device
    codes = model.vae_.encode(problem.reference.float01().to(device), generator=generator)
    plane = plots.Plane(codes)
    figures = {
        **_data_figures(problem, plane, codes),
        "reference": plots.plot_image_grid(problem.reference.float01()[:SHOWN], "Images of the reference"),
        "training": plots.plot_training(_losses(model), "Losses along the fits"),
        "prior_draws": plots.plot_image_grid(prior.x[:SHOWN], "Before: draws from the model's prior", columns=8),
        "energy": _energy(plane, model, tilted, generator),
        "tilted_draws": plots.plot_image_grid(tilted.x[:SHOWN], "After: draws from the tilted prior", columns=8),
        "overlay": plots.plot_overlay(
            plane,
            codes[:POINTS],
            prior.latent[:POINTS],
            tilted.latent[:POINTS],
            "The tilt moves draws to where the reference lies",
        ),
    }
    # The few long chains of HMC and NUTS are kept from after their warm-up, no longer at the prior.
    if tilted.trace is not None and tilted.trace.shape[1] and "chains" not in tilted.diagnostics:
        figures["paths"] = plots.plot_paths(plane, tilted.trace[:25, :6], "The first 25 steps of six Langevin chains")
    if metrics["judged"]:
        figures["shares"] = shares_figure(metrics)
    if (clusters := metrics["clusters"]) is not None:
        images, shares = problem.reference.float01()[clusters["nearest"]], (clusters["reference"], clusters["draws"])
        figures["clusters"] = plots.plot_clusters(images, *shares, "Clusters of raw images: reference → draws")
    if classifier is not None:
        figures |= _class_grids(problem, classifier, tilted.x)
    return figures


def shares_figure(metrics: Mapping[str, Any]) -> Figure:
    """Class shares of a judged run before and after the tilt, beside the target."""
    before, after = (as_read(metrics)[side] for side in ("untilted", "tilted"))
    moved = f"{course(before['tv'], after['tv'])} from {shown(before['tv'])} to {shown(after['tv'])}"
    return plots.plot_shares(
        before["shares"],
        after["shares"],
        metrics["target"],
        metrics["data"]["class_names"],
        f"Distance to the target {moved}",
        intervals=after.get("shares_interval"),
    )


def _class_grids(problem: Problem, classifier: Classifier, x: Tensor) -> dict[str, Figure]:
    """A grid of the first draws that the classifier reads as each class."""
    read = in_chunks(lambda part: classifier.probabilities(classifier.embed(part)).argmax(1), x)
    grids = {}
    for place, k in enumerate(problem.classes):
        rows = torch.nonzero(read == k).flatten()[: SHOWN // 2]
        if len(rows):
            title = f"Read as {verbatim([problem.class_names[place]])[0]}"
            grids[f"class_{place:02d}"] = plots.plot_image_grid(x[rows], title, columns=8)
    return grids


def _losses(model: Debiaser) -> dict[str, list[float]]:
    return {"model, −ELBO (nats)": model.vae_log_.losses, "energy, objective (nats)": model.energy_log_.losses}


def _data_figures(problem: Problem, plane: plots.Plane, codes: Tensor) -> dict[str, Figure]:
    title = f"Codes of {len(codes):,} reference images"
    biased, reference = problem.counts(problem.biased), problem.counts(problem.reference)
    figures = {}
    if biased and reference and problem.class_names:
        figures["counts"] = plots.plot_class_counts(biased, reference, problem.class_names)
        figures["latents"] = plots.plot_latents(
            plane,
            codes,
            problem.reference.labels,
            problem.classes,
            problem.class_names,
            title,
        )
    else:
        figures["reference_latents"] = plots.plot_latents(plane, codes, None, (), (), title)
    return figures


def _energy(plane: plots.Plane, model: Debiaser, tilted: Draws, generator: torch.Generator) -> Figure:
    tilt = model.tilt()
    base = tilt.sample_base(model.method().space.weighed, generator=generator)
    with torch.no_grad():
        energy = in_chunks(tilt.energy, base)
    title = "The tilt favours what the reference has more of"
    # An energy of images is shown where their codes lie.
    return plots.plot_energy(plane, tilt.code(base), energy, tilted.latent, title, bins=60 if len(base) > 1e5 else 40)
