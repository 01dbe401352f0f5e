"""Base distributions, and what every tilt of one has."""
