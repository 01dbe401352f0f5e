"""Tilts: the two sides they are fitted on, their objectives, and their fit."""
