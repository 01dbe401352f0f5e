"""Training an energy from data."""
