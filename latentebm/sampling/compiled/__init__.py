"""Perceptron energies as compiled programs."""
