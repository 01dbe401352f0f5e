"""Table files read without losing a character."""
