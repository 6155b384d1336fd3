"""The ledger as a transparency log: proofs, export, and the search for a fork."""
