"""Other people's models, made to look like ours."""
