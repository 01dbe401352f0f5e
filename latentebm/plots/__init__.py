"""Figures in one style: readable at half width, colour-blind safe; every `title` states the finding."""

from latentebm.plots.energy import plot_calibration, plot_energies, plot_energy, plot_paths
from latentebm.plots.flow import animate_density, plot_density_flow, plot_energy_curve, plot_particle_flow
from latentebm.plots.grids import plot_clusters, plot_image_grid
from latentebm.plots.latents import Plane, plot_encoders, plot_latents, plot_overlay
from latentebm.plots.measures import (
    plot_class_counts,
    plot_methods,
    plot_share_intervals,
    plot_shares,
    plot_study,
    plot_training,
)
from latentebm.plots.missingness import mean_shifts, plot_imputed, plot_missingness
from latentebm.plots.quantities import plot_targets

__all__ = [
    "Plane",
    "animate_density",
    "mean_shifts",
    "plot_calibration",
    "plot_class_counts",
    "plot_clusters",
    "plot_density_flow",
    "plot_encoders",
    "plot_energies",
    "plot_energy",
    "plot_energy_curve",
    "plot_image_grid",
    "plot_imputed",
    "plot_latents",
    "plot_methods",
    "plot_missingness",
    "plot_overlay",
    "plot_particle_flow",
    "plot_paths",
    "plot_share_intervals",
    "plot_shares",
    "plot_study",
    "plot_targets",
    "plot_training",
]
