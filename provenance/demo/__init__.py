"""``provenance demo``: one real training, anchored, verified and tampered with."""
