"""The roll: every run of a ledger, its end or silence, and how many came before another one."""
