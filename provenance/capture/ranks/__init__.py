"""Which ranks there are, what they share, and a tracker in another process."""
