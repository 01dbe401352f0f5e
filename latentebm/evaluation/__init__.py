"""Judges: a classifier and the metrics of balance and quality."""
