"""Frozen formats as pure bytes: no I/O, no clock, no randomness."""
