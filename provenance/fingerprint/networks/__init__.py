"""Adapters of neural networks: the arrays of one framework's models by name."""
