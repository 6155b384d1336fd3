"""Verification: one numbered list of checks over evidence."""
