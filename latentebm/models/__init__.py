"""Networks, likelihoods, the VAE, energies and the tilts built on them."""
