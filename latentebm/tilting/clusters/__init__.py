"""Tilts by clusters: how much more of each the reference has than the biased images or their prior."""
