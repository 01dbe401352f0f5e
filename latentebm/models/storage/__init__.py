"""Tilts as folders of JSON and tensors, tied to the model that they tilt."""
