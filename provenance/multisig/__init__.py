"""Heads that k of n owners sign on the chain itself: asked for, signed and brought back."""
