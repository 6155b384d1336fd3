"""The checks of capabilities beyond recording, anchoring and verifying."""
