"""Losses as pure functions of energies."""
