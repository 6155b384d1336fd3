"""Anchoring: heads on their way to the networks, through one outbox."""
