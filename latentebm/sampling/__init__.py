"""Samplers: all they need of a model is ``potential(x) -> (N,)``, or a base law and an energy."""
