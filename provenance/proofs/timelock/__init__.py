"""Time locks: records that open once k of n persons give their shares (docs/FORMAT.md, 14)."""
