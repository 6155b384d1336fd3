"""What auditors and operators do with evidence: commands call these, one module each."""
