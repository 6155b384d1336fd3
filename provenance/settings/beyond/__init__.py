"""Sections of the capabilities beyond recording, anchoring and verifying."""
