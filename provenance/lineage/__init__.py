"""Lineage: which runs and models a run comes from, and what of their tensors it has."""
