"""Models: which run their weights are of, and their signatures."""
