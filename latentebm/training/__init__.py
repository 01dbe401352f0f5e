"""The one fit loop and what it keeps."""
