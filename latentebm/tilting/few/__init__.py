"""Tilts of features to few reference items."""
