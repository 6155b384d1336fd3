"""What a chain proves, from bytes alone."""
