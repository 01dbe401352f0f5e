"""Other people's models in the form of `LatentModel`."""
