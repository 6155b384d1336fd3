"""``provenance demo --beyond``: every capability beyond recording, anchoring and verifying.

One file each, with ``NEEDS``, the networks that it walks on, and ``walk(stage)``, which performs
it on real nodes and returns one line of evidence.
"""
