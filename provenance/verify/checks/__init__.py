"""The checks of a verification, one subject per file."""
