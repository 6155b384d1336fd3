"""One line in a training of each framework: an adapter each over the tracker.

Importing this package imports no framework; ``provenance.integrations.<framework>`` imports its
own.
"""
