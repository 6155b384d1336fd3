"""The ledger for other people: inclusion proofs and tiles (C2SP tlog-proof, tlog-tiles)."""
