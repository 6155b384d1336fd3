"""Commands of whoever checks: verify, models, the checker, bundles, the log."""
