"""Zero-knowledge proofs about committed numbers: docs/FORMAT.md, section 13."""
