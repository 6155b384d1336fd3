"""The ledger: records come in, runs are sealed."""
