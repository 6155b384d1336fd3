"""``provenance fsck``: a checker that shares nothing with what it checks."""
