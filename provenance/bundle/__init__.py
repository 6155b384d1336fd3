"""Bundles: a run's evidence as files."""
