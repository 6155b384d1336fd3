"""Use cases, one module per verb: commands and workers call these."""
