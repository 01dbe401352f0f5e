"""Importance sampling: weights, resampling, and the samplers built on them."""
