"""Statements about hidden numbers, proved: made by a run's owner, checked by anybody."""
