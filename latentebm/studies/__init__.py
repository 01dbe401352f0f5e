"""Studies of a finished run that ask for many fits or draws."""
