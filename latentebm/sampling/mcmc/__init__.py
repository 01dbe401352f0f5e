"""Markov chains: kernels, steps, chains, and the samplers built on them."""
