"""Frozen formats as pure bytes: no I/O, no clock, no randomness.

docs/FORMAT.md draws each of them to the byte. These files read whatever was ever published: add a
version beside an existing one, and never change what that means.
"""
