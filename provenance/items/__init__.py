"""Item sets: which items a run's data had, and proofs that others were, or were not, among them."""
