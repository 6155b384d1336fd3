"""OpenTimestamps proofs, read and written."""
