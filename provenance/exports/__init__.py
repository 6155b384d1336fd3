"""A run in the forms of other systems: a C2PA manifest of its model, an entry for Rekor."""
