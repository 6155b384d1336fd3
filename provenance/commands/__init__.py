"""One module per command of ``provenance``: arguments in, exit code out."""
