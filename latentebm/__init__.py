"""Debias a trained generator with an energy-based tilt and a small reference set, without retraining it."""

__version__ = "0.1.0"
