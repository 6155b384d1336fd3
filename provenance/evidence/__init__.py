"""Evidence: what there is to verify about one run."""
