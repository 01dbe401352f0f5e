"""Debias a trained generator with an energy-based tilt and a small reference set, without retraining it."""

from __future__ import annotations

import importlib
from typing import Any

from latentebm._version import __version__

_HOME = {
    **dict.fromkeys(
        (
            *("ByClass", "ColumnDriven", "ImagePixels", "MAR", "MCAR", "MNARDataset", "MissingDataWarning", "Patterns"),
            *("SelfMasking", "make_missing", "make_missing_values"),
        ),
        "latentebm.missing.mechanisms",
    ),
    **dict.fromkeys(
        (
            *("HMC", "ISIR", "MALA", "NUTS", "PMC", "SGLD", "SNIS", "ULA", "ConditionalSampler", "Draws", "FusedMLP"),
            *("ImproperSGLD", "JointSampler", "Langevin", "RandomWalk", "Rejection", "ReplayBuffer"),
            "UnconditionalSampler",
            *("agreement", "resample", "rhat", "run_chains", "tune_step"),
        ),
        "latentebm.sampling",
    ),
    **dict.fromkeys(("MIWAEImputer", "MIWAETilt", "tilt_miwae"), "latentebm.missing"),
    "MIWAE": "latentebm.missing.miwae",
    "Attribute": "latentebm.models.features",
    "DataEnergy": "latentebm.models.data_energies",
    **dict.fromkeys(("DataTilt", "ElboTilt"), "latentebm.models.data_tilts"),
    "Debiaser": "latentebm.debiaser",
    "EnergyNet": "latentebm.models.energies",
    "Images": "latentebm.data.images",
    "LatentTilt": "latentebm.models.tilts",
    "ScaledTilt": "latentebm.models.scaled_tilt",
    "Settings": "latentebm.settings.fields",
    "VAE": "latentebm.models.vae",
    **dict.fromkeys(("WrappedGenerator", "WrappedModel"), "latentebm.adapters.from_module"),
    **dict.fromkeys(("MCMCRecipe", "fit_ebm"), "latentebm.ebm.maximum_likelihood"),
    **dict.fromkeys(("JEMRecipe", "fit_jem"), "latentebm.ebm.jem"),
    "biased_split": "latentebm.data.imbalance",
    "debias": "latentebm.workflow.run",
    "jem_loss": "latentebm.objectives.contrast",
    "load_default": "latentebm.data.tabular",
    "load_images": "latentebm.data.images",
    "tilt_generator": "latentebm.tilting.any_model",
    **dict.fromkeys(("expected_shares", "tilt_attributes"), "latentebm.tilting.attributes"),
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and ``latentebm --help`` needs none of it."""
    if name not in _HOME:
        raise AttributeError(f"module 'latentebm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
