"""Runs that are verified again by themselves, and who is told of a change."""
