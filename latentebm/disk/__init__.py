"""What is written to disk: whole or absent, locked, hashed, and never pickled."""
