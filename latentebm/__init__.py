"""Debias a trained generator with an energy-based tilt and a small reference set, without retraining it."""

from latentebm._version import __version__

__all__ = ["__version__"]
