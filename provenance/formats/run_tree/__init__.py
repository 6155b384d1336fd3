"""The run tree: which records are its leaves, the tree, and proofs over it."""
